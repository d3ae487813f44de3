"""The clock as a driver: polls for orders whose deadline has passed, or that wait for an answer too long."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from chassis.clock import rest
from chassis.errors import Aborted, Unavailable

log = structlog.get_logger(__name__)


class Deadlines:
    """A worker that calls `handle`, which says how many orders it handled, until there are none, every `interval` s."""

    def __init__(self, name: str, handle: Callable[[], Awaitable[int]], *, interval: float):
        self.name = name
        self._handle = handle
        self._interval = interval
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                while await self._handle() and not self._stopping.is_set():
                    pass
            except (Unavailable, Aborted) as error:
                log.warning("orders can't be checked", worker=self.name, error=str(error))
            await rest(self._stopping, self._interval)

    async def stop(self) -> None:
        self._stopping.set()
