"""Searches that wait until they see what was written.

However many wait, one loop looks for all of them, and refreshes the index only once something that is waited for has
been written to it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from chassis.errors import DeadlineExceeded, PolymartError
from search_svc.application.ports import Visibility

R = TypeVar("R")

_PAUSE = 0.05
_MOST = 1_000


@dataclass(eq=False, slots=True)
class _Waiting:
    product_id: str
    version: int
    # The name of the index that was seen to have it.
    seen: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Freshness:
    """For one process, over the index that searches read."""

    def __init__(self, index: Visibility):
        self._index = index
        self._waiting: set[_Waiting] = set()
        self._looking: asyncio.Task[None] | None = None

    async def read(self, product_id: str, version: int, *, within: float, query: Callable[[], Awaitable[R]]) -> R:
        """The answer of `query` by an index in which searches see this version of the product, or a newer one.

        Raises DeadlineExceeded if that takes longer than `within` seconds, IndexMissing, Unavailable.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    seen = await self._until_seen(product_id, version)
                    answer = await query()
                    # Another index may have taken its place in between, which isn't refreshed as far.
                    if await self._index.searched() == seen:
                        return answer
        except TimeoutError:
            raise DeadlineExceeded(
                f"version {version} of product {product_id} can't be found yet", reason="INDEX_BEHIND"
            ) from None

    async def _until_seen(self, product_id: str, version: int) -> str:
        waiting = _Waiting(product_id, version)
        self._waiting.add(waiting)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="freshness")
        try:
            return await waiting.seen
        finally:
            self._waiting.discard(waiting)

    async def _look(self) -> None:
        while waiting := list(self._waiting)[:_MOST]:
            try:
                refreshed = await self._look_for(waiting)
            except PolymartError as error:
                for one in waiting:
                    if not one.seen.done():
                        one.seen.set_exception(error)
                refreshed = False
            # What is seen or given up leaves before the next look.
            await asyncio.sleep(0 if refreshed else _PAUSE)

    async def _look_for(self, waiting: list[_Waiting]) -> bool:
        """True if the index was refreshed for somebody, so that another look is worth it."""
        searched = await self._index.searched()
        versions = await self._index.shown({one.product_id for one in waiting})
        for one in waiting:
            if versions.get(one.product_id, 0) >= one.version and not one.seen.done():
                one.seen.set_result(searched)
        left = [one for one in waiting if not one.seen.done()]
        if not left:
            return False
        versions = await self._index.written({one.product_id for one in left})
        if not any(versions.get(one.product_id, 0) >= one.version for one in left):
            return False
        await self._index.refresh_shown()
        return True
