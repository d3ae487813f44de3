"""Several outboxes of one service as one, for the one relay that a service has."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from chassis.outbox.port import LEASE, Backlog, Outbox, OutboxEntry


@dataclass(frozen=True, slots=True)
class _JoinedEntry(OutboxEntry):
    entry: OutboxEntry
    outbox: Outbox


class JoinedOutbox:
    """The entries of all `outboxes`, under the lease of the first. No aggregate may have entries in two.

    A page is of one of them, the first that has anything: the one that is never long comes first.
    """

    def __init__(self, first: Outbox, *others: Outbox):
        self._first = first
        self._outboxes = (first, *others)

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        return await self._first.lease(holder, duration)

    async def release(self, holder: str) -> None:
        await self._first.release(holder)

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        for outbox in self._outboxes:
            if entries := await outbox.pending(limit, skip):
                return [_JoinedEntry(e.id, e.aggregate_id, e.subject, e.headers, e.data, e, outbox) for e in entries]
        return []

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        for outbox in self._outboxes:
            theirs = [each.entry for each in published if isinstance(each, _JoinedEntry) and each.outbox is outbox]
            if theirs:
                await outbox.remove(theirs)

    async def backlog(self) -> Backlog:
        backlogs = [await outbox.backlog() for outbox in self._outboxes]
        return Backlog(sum(b.entries for b in backlogs), max(b.oldest_seconds for b in backlogs))

    def on_added(self, nudge: Callable[[], None]) -> None:
        for outbox in self._outboxes:
            outbox.on_added(nudge)
