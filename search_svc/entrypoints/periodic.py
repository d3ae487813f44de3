"""Work that is done every so often, for as long as the service runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from chassis.clock import rest
from chassis.errors import PolymartError

log = structlog.get_logger(__name__)


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
