"""Looks every second whether the index is there and filled, and rebuilds it where it isn't, or was asked to."""

import asyncio
import contextlib

import structlog

from chassis.errors import Aborted, DeadlineExceeded, Unavailable
from search_svc.application.ports import Generations, Sources
from search_svc.application.rebuild import keep

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
        keeping = asyncio.create_task(self._keep(), name=self.name)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        finally:
            # A rebuild in hand is left as it is: another replica, or this one once it is back, goes on with it.
            for task in (keeping, stopping):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await keeping

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
