"""A protobuf message on its way: CloudEvents 1.0 in binary mode, with trace, correlation and causation."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote, unquote
from uuid import UUID

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from chassis.ids import is_uuid, uuid7
from chassis.messaging.topology import TOPOLOGY
from chassis.telemetry import current_traceparent

CONTENT_TYPE = "application/protobuf"
CORRELATION = "Polymart-Correlation-Id"
CAUSATION = "Polymart-Causation-Id"

# What a header value may hold as it is; the rest is percent-encoded, as CloudEvents' HTTP binding does.
_HEADER_SAFE = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"


class Undecodable(Exception):
    """What arrived isn't a message known here: a header is missing, its type or its bytes are bad."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message and what is known about it.

    `id` is a UUID and the same in every delivery; `aggregate_id` what the message is about; `source` the
    publishing service. `correlation_id` is shared by all that follows from one cause, `causation_id` is the
    message that led to this one. `traceparent` is W3C trace context: the publisher's span, and in a handler
    the span of this handling.
    """

    id: str
    payload: Message
    aggregate_id: str
    source: str
    time: datetime
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None

    @classmethod
    def new(
        cls,
        payload: Message,
        *,
        aggregate_id: str,
        source: str,
        cause: "Envelope | None" = None,
        id: str | None = None,
        now: datetime | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """A message to publish, in the trace of its cause or else of the current span.

        Raises KeyError for a type that the topology doesn't declare.
        """
        TOPOLOGY.route(payload.DESCRIPTOR.full_name)
        id = id or uuid7()
        return cls(
            id=id,
            payload=payload,
            aggregate_id=aggregate_id,
            source=source,
            time=now or datetime.now(UTC),
            correlation_id=correlation_id or (cause.correlation_id if cause else id),
            causation_id=cause.id if cause else None,
            traceparent=(cause.traceparent if cause else None) or current_traceparent(),
        )

    @property
    def type(self) -> str:
        """The payload's full proto name."""
        return self.payload.DESCRIPTOR.full_name

    @property
    def subject(self) -> str:
        return TOPOLOGY.route(self.type).subject(self.aggregate_id)

    @property
    def data(self) -> bytes:
        return self.payload.SerializeToString()

    def headers(self) -> dict[str, str]:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-source": f"/{self.source}",
            "ce-type": self.type,
            "ce-subject": quote(self.aggregate_id, safe=_HEADER_SAFE),
            "ce-time": self.time.isoformat(),
            "ce-dataschema": f"proto:{self.type}",
            "content-type": CONTENT_TYPE,
            "Nats-Msg-Id": self.id,
            CORRELATION: self.correlation_id,
        }
        if self.causation_id:
            headers[CAUSATION] = self.causation_id
        if self.traceparent:
            headers["traceparent"] = self.traceparent
        return headers

    def within(self, traceparent: str | None) -> Self:
        """This message as seen by a handler whose span is `traceparent`."""
        return replace(self, traceparent=traceparent or self.traceparent)

    @classmethod
    def decode(cls, subject: str, headers: dict[str, str] | None, data: bytes) -> Self:
        """What `headers` and `data` were made from. The type must belong to a module that is imported.

        Raises Undecodable.
        """
        headers = headers or {}
        try:
            id, type_name = headers["ce-id"], headers["ce-type"]
            if not is_uuid(id):
                raise Undecodable(f"{subject}: ce-id {id!r} is not a UUID")
            id = str(UUID(id))  # as stores and logs write it
            payload = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(type_name))()
            payload.ParseFromString(data)
            return cls(
                id=id,
                payload=payload,
                aggregate_id=unquote(headers["ce-subject"]),
                source=headers["ce-source"].removeprefix("/"),
                time=datetime.fromisoformat(headers["ce-time"]),
                correlation_id=headers.get(CORRELATION, id),
                causation_id=headers.get(CAUSATION),
                traceparent=headers.get("traceparent"),
            )
        except KeyError as error:
            raise Undecodable(f"{subject}: unknown or missing: {error}") from error
        except (DecodeError, ValueError) as error:
            raise Undecodable(f"{subject}: {error}") from error
