"""Tells others the paths of categories that changed."""

import asyncio

import structlog

from catalog_svc.application.ports import Categories
from catalog_svc.application.taxonomy import tell_paths
from chassis.clock import rest
from chassis.errors import Aborted, Unavailable

log = structlog.get_logger(__name__)

_INTERVAL = 0.5


class PathTeller:
    """A worker that looks twice a second whether the tree has changed. Several replicas' do the same and don't harm."""

    name = "category paths"

    def __init__(self, categories: Categories):
        self._categories = categories
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await tell_paths(categories=self._categories)
            except (Unavailable, Aborted) as error:
                log.warning("the paths of categories can't be told", error=str(error))
            await rest(self._stopping, _INTERVAL)

    async def stop(self) -> None:
        self._stopping.set()
