"""The clock as a driver: polls for orders whose deadline has passed."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from chassis.clock import rest
from chassis.errors import Aborted, Unavailable

log = structlog.get_logger(__name__)


class Deadlines:
    """A worker that calls `expire`, which says how many orders it handled, until there are none, every `interval` s."""

    name = "order deadlines"

    def __init__(self, expire: Callable[[], Awaitable[int]], *, interval: float = 1.0):
        self._expire = expire
        self._interval = interval
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                while await self._expire() and not self._stopping.is_set():
                    pass
            except (Unavailable, Aborted) as error:
                log.warning("deadlines can't be checked", error=str(error))
            await rest(self._stopping, self._interval)

    async def stop(self) -> None:
        self._stopping.set()
