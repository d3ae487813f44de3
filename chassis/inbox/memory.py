"""An inbox in memory, for tests: one transaction at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager


class MemoryTransaction:
    """Collects what is to happen at the commit."""

    def __init__(self) -> None:
        self._after_commit: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        self._after_commit.append(callback)

    def commit(self) -> None:
        for callback in self._after_commit:
            callback()


class MemoryInbox:
    """UnitOfWork whose `tx` is a MemoryTransaction."""

    def __init__(self) -> None:
        self._had: set[tuple[str, str]] = set()
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def begin(self, consumer: str, ids: Sequence[str]) -> AsyncIterator[tuple[MemoryTransaction, set[str]]]:
        async with self._one_at_a_time:
            tx = MemoryTransaction()
            fresh = {id for id in ids if (consumer, id) not in self._had}
            yield tx, fresh
            self._had |= {(consumer, id) for id in fresh}
            tx.commit()

    async def prune(self) -> None:
        """Tests don't last that long."""
