"""What the messaging tests share."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from nats.js.api import RawStreamMsg
from polymart.order.v1.events_pb2 import OrderConfirmed

from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_stream
from chassis.messaging.topology import TOPOLOGY, Consumer
from chassis.outbox.port import OutboxEntry

STREAM = "EVT_ORDER"
CONSUMER = Consumer("test_svc", STREAM, ("polymart.order.v1.OrderConfirmed", "polymart.order.v1.OrderRejected"))


class Worker(Protocol):
    async def run(self) -> None: ...
    async def stop(self) -> None: ...


class Recorder:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.dead: list[tuple[str, str]] = []
        self.backlogs: list[int] = []

    def message(self, type: str, outcome: str, seconds: float, count: int = 1) -> None:
        assert seconds >= 0
        self.outcomes[outcome] += count

    def dead_letter(self, consumer: str, type: str) -> None:
        self.dead.append((consumer, type))

    def outbox(self, entries: int, oldest_seconds: float) -> None:
        self.backlogs.append(entries)

    def lag(self, consumer: str, pending: int) -> None: ...


def confirmed(order_id: str = "o-1") -> Envelope:
    return Envelope.new(OrderConfirmed(order_id=order_id), aggregate_id=order_id, source="order_svc")


def entries(envelopes: Sequence[Envelope]) -> list[OutboxEntry]:
    return [OutboxEntry.of(envelope) for envelope in envelopes]


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[None]:
    """The workers at work until the block ends; then they must stop by themselves."""
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield
    finally:
        for worker in workers:
            await worker.stop()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)


async def stored(nats: Nats, stream: str = STREAM) -> list[RawStreamMsg]:
    """Every message in a stream, in order."""
    state = (await nats.js.stream_info(stream)).state
    if not state.messages:
        return []
    numbers = range(state.first_seq, state.last_seq + 1)
    return list(await asyncio.gather(*(nats.js.get_msg(stream, number, direct=True) for number in numbers)))


async def stored_ids(nats: Nats, stream: str = STREAM) -> list[str]:
    return [(message.headers or {})["ce-id"] for message in await stored(nats, stream)]


async def make_again(nats: Nats, stream: str = STREAM) -> None:
    """Delete a stream with its consumers, and make it anew."""
    await nats.js.delete_stream(stream)
    await ensure_stream(nats, next(s for s in TOPOLOGY.streams if s.name == stream))
