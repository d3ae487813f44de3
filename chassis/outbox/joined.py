"""Several outboxes of one service as one, for the one relay that a service has."""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from chassis.outbox.port import LEASE, Backlog, Outbox, OutboxEntry


class JoinedOutbox:
    """The entries of all `outboxes`, under the lease of the first. No aggregate may have entries in two."""

    def __init__(self, first: Outbox, *others: Outbox):
        self._first = first
        self._outboxes = (first, *others)
        self._from: dict[str, Outbox] = {}

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        return await self._first.lease(holder, duration)

    async def release(self, holder: str) -> None:
        await self._first.release(holder)

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        """About `limit` entries of each."""
        self._from.clear()
        found: list[OutboxEntry] = []
        for outbox in self._outboxes:
            entries = await outbox.pending(limit, skip)
            self._from.update((entry.id, outbox) for entry in entries)
            found += entries
        return found

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        for outbox in self._outboxes:
            await outbox.remove([entry for entry in published if self._from[entry.id] is outbox])

    async def backlog(self) -> Backlog:
        backlogs = [await outbox.backlog() for outbox in self._outboxes]
        return Backlog(sum(b.entries for b in backlogs), max(b.oldest_seconds for b in backlogs))

    def on_added(self, nudge: Callable[[], None]) -> None:
        for outbox in self._outboxes:
            outbox.on_added(nudge)
