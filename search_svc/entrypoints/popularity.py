"""Computes the popularity of products again every few seconds."""

import asyncio
from collections.abc import Mapping
from time import monotonic

import structlog

from chassis.errors import Aborted, Unavailable
from search_svc.application.popularity import Window, keep_popularity
from search_svc.application.ports import DocumentRefused, Sales, SalesHistory, Targets
from search_svc.entrypoints.periodic import until_stopped

log = structlog.get_logger(__name__)

# So often what is recorded is compared whole, rather than with what was written last.
_WHOLE_EVERY = 60
# Rests so many times as long as it worked, where that is longer than the interval: sums over many orders take time that
# the engine owes to queries.
_REST = 4


class PopularityKeeper:
    """A worker. `holder` names this replica in the lease; `interval` is in seconds."""

    name = "popularity keeper"

    def __init__(
        self,
        *,
        holder: str,
        sales: Sales,
        history: SalesHistory,
        targets: Targets,
        window: Window,
        interval: float,
    ):
        self._holder = holder
        self._sales = sales
        self._history = history
        self._targets = targets
        self._window = window
        self._interval = interval
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        # Whoever keeps it next compares all that this one may have left half done.
        await until_stopped(self._keep(), self._stopping, name=self.name)

    async def stop(self) -> None:
        self._stopping.set()

    async def _keep(self) -> None:
        shown: Mapping[str, float] | None = None
        passes, said = 0, ""
        while True:
            if passes % _WHOLE_EVERY == 0:
                shown = None
            passes += 1
            began = monotonic()
            try:
                *others, serving = await self._targets.targets()
                shown = await keep_popularity(
                    shown,
                    holder=self._holder,
                    sales=self._sales,
                    history=self._history,
                    index=serving,
                    others=others,
                    window=self._window,
                )
                said = ""
            except (Unavailable, Aborted, DocumentRefused) as error:
                shown = None
                self._targets.forget()
                if str(error) != said:
                    log.warning("popularity can't be computed", error=str(error))
                said = str(error)
            await asyncio.sleep(max(self._interval, (monotonic() - began) * _REST))
