"""An outbox in memory, for tests."""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from time import monotonic

from chassis.inbox.memory import MemoryTransaction
from chassis.messaging.envelope import Envelope
from chassis.outbox.port import LEASE, PAGE_BYTES, Backlog, OutboxEntry


class MemoryOutbox:
    def __init__(self) -> None:
        self.entries: dict[str, OutboxEntry] = {}
        self._added_at: dict[str, float] = {}
        self._lease = ("", 0.0)
        self._nudge: Callable[[], None] = lambda: None

    async def add(self, tx: MemoryTransaction, envelopes: Sequence[Envelope]) -> None:
        """Keep the messages once `tx` commits."""
        entries = [OutboxEntry.of(envelope) for envelope in envelopes]

        def keep() -> None:
            self.entries.update((entry.id, entry) for entry in entries)
            self._added_at.update((entry.id, monotonic()) for entry in entries)
            self._nudge()

        tx.after_commit(keep)

    def on_added(self, nudge: Callable[[], None]) -> None:
        self._nudge = nudge

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        owner, expires = self._lease
        if owner != holder and monotonic() < expires:
            return False
        self._lease = (holder, monotonic() + duration.total_seconds())
        return True

    async def release(self, holder: str) -> None:
        if self._lease[0] == holder:
            self._lease = ("", 0.0)

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        page: list[OutboxEntry] = []
        size = 0
        for entry in self.entries.values():
            if len(page) == limit or size >= PAGE_BYTES:
                break
            if entry.aggregate_id not in skip:
                page.append(entry)
                size += len(entry.data)
        return page

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        for entry in published:
            self.entries.pop(entry.id, None)
            self._added_at.pop(entry.id, None)

    async def backlog(self) -> Backlog:
        now = monotonic()
        return Backlog(len(self.entries), max((now - at for at in self._added_at.values()), default=0.0))
