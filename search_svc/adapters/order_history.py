"""The order events, read again from their stream."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from chassis.messaging.nats import Nats
from chassis.messaging.replay import replay
from chassis.messaging.topology import Consumer
from search_svc.domain.popularity import Sale
from search_svc.protos import sale_from_envelope


class OrderHistory:
    """`consumer` names the stream, and which of its messages tell of sales."""

    def __init__(self, nats: Nats, consumer: Consumer):
        self._nats = nats
        self._consumer = consumer

    async def sales(self, since: int) -> AsyncIterator[Sequence[Sale]]:
        # The broker stores a message after what it tells of.
        start = datetime.fromtimestamp(since / 1000, UTC)
        async for envelopes in replay(self._nats, self._consumer, start):
            yield [sale_from_envelope(envelope) for envelope in envelopes]
