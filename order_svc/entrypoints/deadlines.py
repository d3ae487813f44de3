"""The clock as a driver: polls for orders whose deadline has passed."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()

    async def stop(self) -> None:
        self._stopping.set()
