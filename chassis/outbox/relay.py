"""The relay: moves messages from an outbox to the broker, one replica at a time."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import structlog

from chassis.clock import rest
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.messaging.publisher import Outcome, Publisher
from chassis.outbox.port import LEASE, Outbox, OutboxEntry

log = structlog.get_logger(__name__)

_PAGE = 1_000
_POLL = 0.25
_LONGEST_DELAY = 2.0
_FLUSH = 5.0
_MEASURE = 5.0
# How long an aggregate that can't get rid of a message is left alone, so that others come to their turn: as long as
# that has been so, within these bounds; if the broker refused the message, for the longest of them.
_SHORTEST_REST = 0.5
_LONGEST_REST = 30.0


class RelayMetrics(Protocol):
    def message(self, type: str, outcome: str, seconds: float, count: int = 1) -> None: ...
    def outbox(self, entries: int, oldest_seconds: float) -> None: ...


@dataclass(slots=True)
class _Rest:
    """An aggregate that got rid of nothing since `since` is left alone until `until`."""

    since: float
    until: float


class Relay:
    """A worker that publishes what an outbox holds, and removes a message after the broker acknowledged it.

    Of several replicas' relays the one with the lease works. Every message is published at least once, those
    of one aggregate in order; one that the broker refuses, or whose stream is missing, holds up its own aggregate
    alone.
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
        self._resting: dict[str, _Rest] = {}
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
        entries = await self._outbox.pending(_PAGE, [a for a, rest in self._resting.items() if rest.until > now])
        if not entries:
            return False
        if not self.leased:
            return None
        outcome = await self._publisher.attempt(entries)
        published = [entry for entry in entries if entry.id in outcome.acked]
        if published:
            await self._outbox.remove(published)
        if not published and not outcome.refused and not self._publisher.connected:
            return None
        self._give_rest(entries, outcome)
        return True

    def _give_rest(self, entries: Sequence[OutboxEntry], outcome: Outcome) -> None:
        now = monotonic()
        moved = {entry.aggregate_id for entry in entries if entry.id in outcome.acked}
        for aggregate in moved:
            self._resting.pop(aggregate, None)
        for aggregate in {entry.aggregate_id for entry in entries} - moved:
            since = self._resting[aggregate].since if aggregate in self._resting else now
            self._resting[aggregate] = _Rest(since, now + min(max(now - since, _SHORTEST_REST), _LONGEST_REST))
        for entry in entries:
            if entry.id in outcome.refused:
                self._resting[entry.aggregate_id] = _Rest(now, now + _LONGEST_REST)
                self._metrics.message(_type(entry), "refused", 0.0)

    async def _lease(self) -> bool:
        now = monotonic()
        if now >= self._renew_at:
            if await self._outbox.lease(self._holder):
                self._leased_until = now + LEASE.total_seconds()
                self._renew_at = now + LEASE.total_seconds() / 3
            else:
                self._leased_until = 0.0
                self._resting.clear()
        return self.leased

    async def _measure(self) -> None:
        if not self.leased:
            self._measure_at = 0.0
            self._metrics.outbox(0, 0.0)  # it is another's now, who says how much there is
        elif monotonic() >= self._measure_at:
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
        await self._measure()


def _type(entry: OutboxEntry) -> str:
    return entry.headers.get("ce-type", "")
