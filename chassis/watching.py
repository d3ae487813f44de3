"""Watching what is stored: many watchers, one reader of the store and one subscription a process.

Hints only say where to look; what watchers get always comes from the store. They come from the process's own writes
and, through `chassis.messaging.hints`, from those of other replicas; what nobody hinted at is found by a poll.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from time import monotonic
from typing import Generic, TypeVar

import structlog

from chassis.clock import rest
from chassis.errors import Unavailable

log = structlog.get_logger(__name__)

POLL = 1.0


class Watched:
    """Something with watchers, and what wakes them at its next change."""

    __slots__ = ("changed", "watchers")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.watchers = 0

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


W = TypeVar("W", bound=Watched)


class Watch(ABC, Generic[W]):
    """A worker that looks after all that is being watched, together: after what it is told of at once, after everything
    every `poll` seconds."""

    def __init__(self, name: str, new: Callable[[], W], *, poll: float = POLL):
        self.name = name
        self._new = new
        self._poll = poll
        self._watched: dict[str, W] = {}
        self._hinted: set[str] = set()
        self._woken = asyncio.Event()
        self._stopping = False

    @abstractmethod
    async def _read(self, keys: Collection[str]) -> None:
        """Read these again and wake the watchers of those that have changed. Raises Unavailable."""

    @abstractmethod
    async def _outdated(self) -> Collection[str]:
        """Those among the watched that have changed since they were read. Raises Unavailable."""

    @property
    def idle(self) -> bool:
        return not self._watched

    def changed(self, keys: Collection[str]) -> None:
        """A hint that these have changed."""
        if hinted := self._watched.keys() & set(keys):
            self._hinted |= hinted
            self._woken.set()

    async def run(self) -> None:
        poll_at = monotonic() + self._poll
        while not self._stopping:
            await rest(self._woken, poll_at - monotonic())
            self._woken.clear()
            hinted, self._hinted = self._hinted, set()
            try:
                await self._read(hinted)
                if monotonic() >= poll_at:
                    poll_at = monotonic() + self._poll
                    await self._read(await self._outdated())
            except Unavailable as error:
                log.warning("what is watched can't be read", watch=self.name, error=str(error))

    async def stop(self) -> None:
        """End every watch."""
        self._stopping = True
        self._woken.set()
        for watched in self._watched.values():
            watched.wake()

    @contextlib.contextmanager
    def _watching(self, key: str) -> Iterator[W]:
        """One more watcher of `key`, while the block lasts."""
        watched = self._watched.setdefault(key, self._new())
        watched.watchers += 1
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(key, None)

    async def _next_change(self, change: asyncio.Event) -> None:
        """Wait for it. Raises Unavailable when the service stops: what just ends has come to its end."""
        if self._stopping:
            raise Unavailable("the service is stopping; watch again", reason="STOPPING")
        await change.wait()
