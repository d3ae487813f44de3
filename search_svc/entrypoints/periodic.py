"""Work that goes on, or is done every so often, for as long as the service runs."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import structlog

from chassis.clock import rest
from chassis.errors import PolymartError

log = structlog.get_logger(__name__)


async def until_stopped(work: Coroutine[None, None, None], stopping: asyncio.Event, *, name: str) -> None:
    """Work without an end, broken off wherever it is once it is to stop. Raises what it raises."""
    working = asyncio.create_task(work, name=name)
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, waiting):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working


class Periodic:
    """A worker that takes each step every `seconds`, with `last` once more when it stops. One that fails is tried again
    the next time; of a failure that goes on, the log has one line."""

    def __init__(self, name: str, seconds: float, *steps: Callable[[], Awaitable[None]], last: bool = False):
        self.name = name
        self._seconds = seconds
        self._last = last
        self._steps: Sequence[Callable[[], Awaitable[None]]] = steps
        self._said: set[str] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            await self._take()
            await rest(self._stopping, self._seconds)
        if self._last:
            await self._take()

    async def stop(self) -> None:
        self._stopping.set()

    async def _take(self) -> None:
        said = set()
        for step in self._steps:
            try:
                await step()
            except PolymartError as error:
                said.add(str(error))
                if str(error) not in self._said:
                    log.warning("tried again later", what=self.name, error=str(error))
        self._said = said
