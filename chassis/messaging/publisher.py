"""Publishing to JetStream: few messages each on its own, many as one atomic batch."""

import asyncio
import json
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from nats.errors import BadHeaderError, BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.errors import APIError, ServerError, ServiceUnavailableError
from uuid_utils import uuid4

from chassis.errors import Internal, Unavailable
from chassis.messaging.dead_letters import DEAD_LETTER_HEADERS
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, wire_size
from chassis.messaging.topology import TOPOLOGY, Topology
from chassis.outbox.port import OutboxEntry

log = structlog.get_logger(__name__)

# From this many on a batch is faster: it syncs to disk once, but takes the broker 6 ms at least.
_WORTH_A_BATCH = 8
_BATCH_MESSAGES = 500
_BATCH_BYTES = 4 * 1024 * 1024
_IN_FLIGHT = 64
_TIMEOUT = 5.0

_OUTAGES = (OSError, TimeoutError, NatsError)
_REFUSALS = (MaxPayloadError, BadSubjectError, BadHeaderError)


@dataclass(slots=True)
class Outcome:
    """What became of a publish: ids that the broker stored, and ids that it won't ever take, with the reason.

    What is in neither may have been stored or not; publishing it again is right.
    """

    acked: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


class Publisher:
    def __init__(self, nats: Nats, topology: Topology = TOPOLOGY):
        self._nats = nats
        self._streams = [(s.removesuffix(">"), stream.name) for stream in topology.streams for s in stream.subjects]

    @property
    def connected(self) -> bool:
        return self._nats.connected

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Publish without an outbox.

        Raises Unavailable unless the broker acknowledged every one, Internal for one that it will never take.
        """
        outcome = await self.attempt([OutboxEntry.of(envelope) for envelope in envelopes])
        if outcome.refused:
            raise Internal("; ".join(outcome.refused.values()))
        if not outcome.acked.issuperset(envelope.id for envelope in envelopes):
            raise Unavailable("NATS didn't acknowledge what was published")

    async def attempt(self, entries: Sequence[OutboxEntry]) -> Outcome:
        """Publish, keeping the order within each aggregate and stream: what follows a message that wasn't
        acknowledged isn't sent. Doesn't raise for an outage."""
        outcome = Outcome()
        if not self._nats.connected:
            return outcome
        by_stream: dict[str, list[OutboxEntry]] = {}
        blocked: set[str] = set()
        for entry in entries:
            stream, reason = self._stream_of(entry), self._unpublishable(entry)
            if stream is None or reason:
                outcome.refused[entry.id] = reason or f"no stream takes {entry.subject}"
                blocked.add(entry.aggregate_id)
            elif entry.aggregate_id not in blocked:
                by_stream.setdefault(stream, []).append(entry)
        if by_stream:
            runs = (self._publish_to_stream(run, outcome) for run in by_stream.values())
            try:
                await self._nats.while_connected(_all(runs))
            except Unavailable as error:
                log.warning("publishing interrupted", error=str(error))
        for entry in entries:
            if reason := outcome.refused.get(entry.id):
                log.error("message can't be published", id=entry.id, subject=entry.subject, reason=reason)
        return outcome

    def _stream_of(self, entry: OutboxEntry) -> str | None:
        return next((name for prefix, name in self._streams if entry.subject.startswith(prefix)), None)

    def _unpublishable(self, entry: OutboxEntry) -> str | None:
        size, limit = wire_size(entry.headers, entry.data), self._nats.client.max_payload - DEAD_LETTER_HEADERS
        if size > limit:
            return (
                f"{size} bytes are more than the limit of {limit}, which is the broker's less a dead letter's headers"
            )
        return None

    async def _publish_to_stream(self, entries: list[OutboxEntry], outcome: Outcome) -> None:
        blocked: set[str] = set()
        for chunk in _chunks(entries):
            run = [entry for entry in chunk if entry.aggregate_id not in blocked]
            if len(run) >= _WORTH_A_BATCH:
                try:
                    if await self._publish_batch(run):
                        outcome.acked.update(entry.id for entry in run)
                        continue
                except _OUTAGES as error:
                    log.warning("publishing interrupted", error=str(error) or type(error).__name__)
                    return
            await self._publish_singly(run, outcome)
            blocked.update(entry.aggregate_id for entry in run if entry.id not in outcome.acked)

    async def _publish_batch(self, entries: Sequence[OutboxEntry]) -> bool:
        """Whether the broker stored all; if not, it stored none."""
        batch, last = str(uuid4()), len(entries)
        client = self._nats.client
        for sequence, entry in enumerate(entries[:-1], start=1):
            headers = {**entry.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(sequence)}
            await client.publish(entry.subject, entry.data, headers=headers)
        commit = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(last), "Nats-Batch-Commit": "1"}
        entry = entries[-1]
        reply = await client.request(entry.subject, entry.data, timeout=_TIMEOUT, headers={**entry.headers, **commit})
        answer = json.loads(reply.data)
        if error := answer.get("error"):
            # Most often 10201: one of them is stored already.
            log.info("batch not taken, publishing singly", error=error.get("description"), messages=last)
            return False
        return bool(answer.get("count") == last)

    async def _publish_singly(self, entries: Sequence[OutboxEntry], outcome: Outcome) -> None:
        in_flight = asyncio.Semaphore(_IN_FLIGHT)

        async def publish_in_order(run: Iterable[OutboxEntry]) -> None:
            async with in_flight:
                for entry in run:
                    try:
                        await self._nats.js.publish(
                            entry.subject, entry.data, timeout=_TIMEOUT, headers=dict(entry.headers)
                        )
                    except (ServiceUnavailableError, ServerError) as error:
                        log.warning("publishing failed", subject=entry.subject, error=str(error))
                        return
                    except (APIError, *_REFUSALS) as error:
                        outcome.refused[entry.id] = str(error)
                        return
                    except _OUTAGES as error:
                        log.warning("publishing failed", subject=entry.subject, error=str(error))
                        return
                    outcome.acked.add(entry.id)

        runs: dict[str, list[OutboxEntry]] = {}
        for entry in entries:
            runs.setdefault(entry.aggregate_id, []).append(entry)
        await asyncio.gather(*(publish_in_order(run) for run in runs.values()))


async def _all(steps: Iterable[Coroutine[None, None, None]]) -> None:
    await asyncio.gather(*steps)


def _chunks(entries: Sequence[OutboxEntry]) -> Iterator[list[OutboxEntry]]:
    chunk: list[OutboxEntry] = []
    size = 0
    for entry in entries:
        if chunk and (len(chunk) == _BATCH_MESSAGES or size + len(entry.data) > _BATCH_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += len(entry.data)
    if chunk:
        yield chunk
