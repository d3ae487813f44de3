"""Messages that a consumer gave up on: kept in the stream `DLQ`, to be looked at and replayed.

The subject is `dlq.<consumer>.<message id>`. Beside the original headers an entry has `Polymart-Error`,
`Polymart-Deliveries`, `Polymart-Consumer` and `Polymart-Subject` (where the message came from).
"""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import quote, unquote

from google.protobuf.message import Message
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import DeliverPolicy, RawStreamMsg
from nats.js.errors import NotFoundError as NoMessage
from nats.js.errors import ServerError

from chassis.errors import NotFound
from chassis.ids import subject_token, uuid7
from chassis.messaging.envelope import Envelope, Undecodable
from chassis.messaging.nats import Nats, wire_size
from chassis.messaging.topology import DLQ

ERROR = "Polymart-Error"
DELIVERIES = "Polymart-Deliveries"
CONSUMER = "Polymart-Consumer"
SUBJECT = "Polymart-Subject"
REPLAY = "Polymart-Replay"
MESSAGE_ID = "Nats-Msg-Id"

_OURS = (ERROR, DELIVERIES, CONSUMER, SUBJECT)
# What a message is given more when it becomes a dead letter; whatever is published leaves that much room.
DEAD_LETTER_HEADERS = 8 * 1024
# Of an error as it is written; the rest of those headers is subjects, names and numbers.
_LONGEST_ERROR = 2_000
_NO_MESSAGE = 10057


def _of_broker(header: str) -> bool:
    """Whether it is about one publishing, such as the atomic batch that it belonged to, and not to be repeated."""
    return header.startswith("Nats-")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry of the DLQ. `sequence` names it; `replays` counts how often it was sent again before."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    error: str
    deliveries: int
    consumer: str
    at: datetime | None

    @property
    def id(self) -> str:
        return self.headers.get("ce-id", "")

    @property
    def type(self) -> str:
        return self.headers.get("ce-type", "")

    @property
    def replays(self) -> int:
        return int(self.headers.get(REPLAY, "0"))

    def payload(self) -> Message | None:
        """The message, None where it can't be decoded. Its type's module must be imported."""
        try:
            return Envelope.decode(self.subject, dict(self.headers), self.data).payload
        except Undecodable:
            return None

    @classmethod
    def of(cls, sequence: int, headers: Mapping[str, str], data: bytes, at: datetime | None) -> Self:
        return cls(
            sequence=sequence,
            subject=headers.get(SUBJECT, ""),
            headers={key: value for key, value in headers.items() if key not in _OURS and not _of_broker(key)},
            data=data,
            error=unquote(headers.get(ERROR, "")),
            deliveries=int(headers.get(DELIVERIES, "0")),
            consumer=headers.get(CONSUMER, ""),
            at=at,
        )


def _header_value(error: str) -> str:
    value = quote(error[:_LONGEST_ERROR], safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"")
    if len(value) <= _LONGEST_ERROR:
        return value
    # Not within an escape; half a character shows as a replacement.
    return re.sub("%.?$", "", value[:_LONGEST_ERROR])


def _not_found(sequence: int) -> NotFound:
    return NotFound(f"no dead letter {sequence}", reason="DEAD_LETTER_NOT_FOUND")


class DeadLetters:
    """The DLQ. Raises nats' errors where the broker can't be reached, or a message is more than it takes."""

    def __init__(self, nats: Nats):
        self._nats = nats

    async def add(self, message: Msg, *, consumer: str, error: str) -> None:
        """Copy a delivered message; returns once the copy is stored. The same failure twice is one entry."""
        headers = {key: value for key, value in (message.headers or {}).items() if not _of_broker(key)}
        id = headers.get("ce-id") or f"{message.metadata.stream}-{message.metadata.sequence.stream}"
        headers.update(
            {
                # Of this consumer and this replay: two consumers' failures are two entries.
                MESSAGE_ID: f"{id}/{consumer}/{headers.get(REPLAY, '0')}",
                ERROR: _header_value(error),
                DELIVERIES: str(message.metadata.num_delivered),
                CONSUMER: consumer,
                SUBJECT: message.subject,
            }
        )
        await self._publish(f"dlq.{subject_token(consumer)}.{subject_token(id)}", message.data, headers)

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        if wire_size(headers, data) > self._nats.client.max_payload:
            raise MaxPayloadError
        await self._nats.js.publish(subject, data, headers=headers)

    async def list(self, *, limit: int | None = None) -> list[DeadLetter]:
        """The oldest `limit` entries, or all."""
        return [letter async for letter in self._read(limit)]

    async def _read(self, limit: int | None) -> AsyncIterator[DeadLetter]:
        state = (await self._nats.js.stream_info(DLQ)).state
        left = state.messages if limit is None else min(limit, state.messages)
        if not left:
            return
        subscription = await self._nats.js.subscribe(
            "dlq.>", stream=DLQ, ordered_consumer=True, deliver_policy=DeliverPolicy.ALL
        )
        try:
            while left:
                message = await subscription.next_msg(timeout=5)
                left -= 1
                meta = message.metadata
                yield DeadLetter.of(meta.sequence.stream, message.headers or {}, message.data, meta.timestamp)
        except NatsTimeout:
            return
        finally:
            await subscription.unsubscribe()

    async def get(self, sequence: int) -> DeadLetter:
        """Raises errors.NotFound."""
        stored = await self._stored(sequence)
        return DeadLetter.of(sequence, stored.headers or {}, stored.data or b"", stored.time)

    async def _stored(self, sequence: int) -> RawStreamMsg:
        try:
            return await self._nats.js.get_msg(DLQ, sequence)
        except NoMessage as error:
            raise _not_found(sequence) from error

    async def replay(self, sequence: int) -> DeadLetter:
        """Send a message again where it came from, then drop the entry. Raises errors.NotFound.

        Its `ce-id` stays, so that consumers that had it take no notice of it.
        """
        letter = await self.get(sequence)
        headers = {**letter.headers, MESSAGE_ID: uuid7(), REPLAY: str(letter.replays + 1)}
        await self._publish(letter.subject, letter.data, headers)
        with contextlib.suppress(NotFound):
            await self.drop(sequence)
        return letter

    async def drop(self, sequence: int) -> None:
        """Forget an entry. Raises errors.NotFound."""
        try:
            await self._nats.js.delete_msg(DLQ, sequence)
        except ServerError as error:
            if error.err_code != _NO_MESSAGE:
                raise
            raise _not_found(sequence) from error
