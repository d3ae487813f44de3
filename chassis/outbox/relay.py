"""The relay: moves messages from an outbox to the broker, one replica at a time."""

import asyncio
import contextlib
from time import monotonic
from typing import Protocol

import structlog

from chassis.clock import rest
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.messaging.publisher import Publisher
from chassis.outbox.port import LEASE, Outbox, OutboxEntry

log = structlog.get_logger(__name__)

_PAGE = 1_000
_POLL = 0.25
_LONGEST_DELAY = 2.0
_FLUSH = 5.0
_MEASURE = 5.0
# How long the aggregate of a message that the broker refuses is left alone.
_REFUSED_AGAIN = 30.0


class RelayMetrics(Protocol):
    def message(self, type: str, outcome: str, seconds: float, count: int = 1) -> None: ...
    def outbox(self, entries: int, oldest_seconds: float) -> None: ...


class Relay:
    """A worker that publishes what an outbox holds, and removes a message after the broker acknowledged it.

    Of several replicas' relays the one with the lease works. Every message is published at least once, those
    of one aggregate in order; one that the broker refuses holds up its own aggregate alone.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, metrics: RelayMetrics, name: str):
        self.name = f"{name} relay"
        self._outbox = outbox
        self._publisher = publisher
        self._metrics = metrics
        self._holder = uuid7()
        self._nudged = asyncio.Event()
        self._stopping = asyncio.Event()
        self._leased_until = 0.0
        self._renew_at = 0.0
        self._measure_at = 0.0
        self._refused: dict[str, float] = {}
        outbox.on_added(self.nudge)

    @property
    def leased(self) -> bool:
        return monotonic() < self._leased_until

    def nudge(self) -> None:
        """Look into the outbox now rather than at the next poll."""
        self._nudged.set()

    async def run(self) -> None:
        delay = 0.0
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                progress = await self._round()
                await self._measure()
            except Unavailable as error:
                log.warning("outbox can't be reached", relay=self.name, error=str(error))
                progress = None
            if progress is None:
                delay = min(max(delay * 2, 0.1), _LONGEST_DELAY)
                await rest(self._stopping, delay)
            else:
                delay = 0.0
                if not progress:
                    await rest(self._nudged, _POLL)
        await self._flush()

    async def stop(self) -> None:
        self._stopping.set()
        self._nudged.set()

    async def _round(self) -> bool | None:
        """Publish a page. True: it got somewhere; False: there was nothing to do; None: it didn't work."""
        if not await self._lease():
            return False
        now = monotonic()
        self._refused = {aggregate: again for aggregate, again in self._refused.items() if again > now}
        entries = await self._outbox.pending(_PAGE, tuple(self._refused))
        if not entries:
            return False
        if not self.leased:
            return None
        outcome = await self._publisher.attempt(entries)
        for entry in entries:
            if entry.id in outcome.refused:
                self._refused[entry.aggregate_id] = monotonic() + _REFUSED_AGAIN
                self._metrics.message(_type(entry), "refused", 0.0)
        published = [entry for entry in entries if entry.id in outcome.acked]
        if published:
            await self._outbox.remove(published)
        return True if published or outcome.refused else None

    async def _lease(self) -> bool:
        now = monotonic()
        if now >= self._renew_at:
            if await self._outbox.lease(self._holder):
                self._leased_until = now + LEASE.total_seconds()
                self._renew_at = now + LEASE.total_seconds() / 3
            else:
                self._leased_until = 0.0
        return self.leased

    async def _measure(self) -> None:
        if self.leased and monotonic() >= self._measure_at:
            self._measure_at = monotonic() + _MEASURE
            backlog = await self._outbox.backlog()
            self._metrics.outbox(backlog.entries, backlog.oldest_seconds)

    async def _flush(self) -> None:
        """Publish what the last requests left, as far as that goes quickly, and let another replica go on."""
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_FLUSH):
                while self.leased and await self._round():
                    pass
        with contextlib.suppress(Unavailable):
            await self._outbox.release(self._holder)
        self._leased_until = 0.0


def _type(entry: OutboxEntry) -> str:
    return entry.headers.get("ce-type", "")
