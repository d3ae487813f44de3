"""The orders of the window in memory, where every step lets others go first as often as it is told."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from search_svc.adapters.memory_index import MemoryDocuments, MemoryIndex
from search_svc.application.ports import IndexMissing, Units
from search_svc.domain.popularity import Sale


class MemorySales:
    """`index` holds the popularity of products. There is nothing until `prepare`; `lose` takes it all away again."""

    def __init__(
        self, index: MemoryIndex, waits: Callable[[], int] = lambda: 0, clock: Callable[[], float] = time.time
    ):
        self.orders: MemoryDocuments[Sale] = MemoryDocuments(waits)
        self._index = index
        self._waits = waits
        self._clock = clock
        self.lose()

    def lose(self) -> None:
        self.orders.documents.clear()
        self._there = self._filled = False
        self._holder, self._until = "", 0.0

    async def units(self, since: int) -> Units:
        await self._wait()
        by_product, by_sku = Counter[str](), Counter[str]()
        for stored in self.orders.documents.values():
            sale = stored.document
            if sale.confirmed >= max(since, 1) and not sale.cancelled:
                for line in sale.lines:
                    sums, key = (by_product, line.product_id) if line.product_id else (by_sku, line.sku)
                    sums[key] += line.units
        return Units(by_product, by_sku)

    async def popular(self) -> Sequence[str]:
        await self._wait()
        records = self._index.popularity.documents
        return [key for key, stored in records.items() if stored.document.popularity.value > 0]

    async def forget(self, before: int) -> None:
        await self._wait()
        documents = self.orders.documents
        for key in [key for key, stored in documents.items() if stored.document.time < before]:
            del documents[key]

    async def refresh(self) -> None:
        await self._wait()

    async def prepare(self) -> bool:
        await asyncio.sleep(0)
        missing, self._there = not self._there, True
        return missing

    async def take(self, holder: str, seconds: float) -> bool:
        await self._wait()
        if self._holder not in ("", holder) and self._until > self._clock():
            return False
        self._holder, self._until = holder, self._clock() + seconds
        return True

    async def renew(self, holder: str, seconds: float) -> bool:
        await self._wait()
        if self._holder != holder:
            return False
        self._until = self._clock() + seconds
        return True

    async def filled(self) -> bool:
        await self._wait()
        return self._filled

    async def complete(self, holder: str) -> bool:
        await self._wait()
        if self._holder != holder:
            return False
        self._filled = True
        return True

    async def computed(self, holder: str, since: int) -> bool:
        await self._wait()
        return self._holder == holder

    async def _wait(self) -> None:
        for _ in range(self._waits()):
            await asyncio.sleep(0)
        if not self._there:
            raise IndexMissing
