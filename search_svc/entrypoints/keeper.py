"""Looks every second whether the index is there and filled, and rebuilds it where it isn't, or was asked to."""

import asyncio

import structlog

from chassis.errors import Aborted, DeadlineExceeded, Unavailable
from search_svc.application.ports import Generations, Sources
from search_svc.application.rebuild import keep
from search_svc.entrypoints.periodic import until_stopped

log = structlog.get_logger(__name__)

_INTERVAL = 1.0


class IndexKeeper:
    """A worker. `holder` names this replica in the rebuild's lease."""

    name = "index keeper"

    def __init__(self, *, holder: str, generations: Generations, sources: Sources):
        self._holder = holder
        self._generations = generations
        self._sources = sources
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        # A rebuild in hand is left as it is: another replica, or this one once it is back, goes on with it.
        await until_stopped(self._keep(), self._stopping, name=self.name)

    async def stop(self) -> None:
        self._stopping.set()

    async def _keep(self) -> None:
        said = ""
        while True:
            try:
                if await keep(holder=self._holder, generations=self._generations, sources=self._sources):
                    log.info("the index is rebuilt")
                said = ""
            except (Unavailable, Aborted, DeadlineExceeded) as error:
                if str(error) != said:
                    log.warning("the index can't be kept", error=str(error))
                said = str(error)
            await asyncio.sleep(_INTERVAL)
