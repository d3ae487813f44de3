"""Documents in memory, where every step lets others go first as often as it is told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Generic

from search_svc.application.ports import D, DocumentRefused, Stored, Write
from search_svc.domain.popularity import PopularityRecord
from search_svc.domain.product import Category, Product, SkuRecord


class MemoryDocuments(Generic[D]):
    def __init__(self, waits: Callable[[], int], refused: frozenset[str] = frozenset()):
        self.documents: dict[str, Stored[D]] = {}
        self.writes = 0
        self._waits = waits
        self._refused = refused

    async def read(self, keys: Sequence[str]) -> Mapping[str, Stored[D]]:
        await self._wait()
        found = {key: self.documents[key] for key in keys if key in self.documents}
        await self._wait()
        return found

    async def write(self, writes: Sequence[Write[D]]) -> set[str]:
        await self._wait()
        conflicts = set()
        for write in writes:
            current = self.documents.get(write.key)
            if write.key in self._refused:
                continue
            if (current.revision if current else None) != write.revision:
                conflicts.add(write.key)
                continue
            self.writes += 1
            self.documents[write.key] = Stored(write.document, (self.writes, 1))
        await self._wait()
        if refused := self._refused.intersection(write.key for write in writes):
            raise DocumentRefused(f"{refused}")
        return conflicts

    async def _wait(self) -> None:
        for _ in range(self._waits()):
            await asyncio.sleep(0)


class MemoryIndex:
    def __init__(self, waits: Callable[[], int] = lambda: 0, refused: frozenset[str] = frozenset()):
        self.products: MemoryDocuments[Product] = MemoryDocuments(waits, refused)
        self.skus: MemoryDocuments[SkuRecord] = MemoryDocuments(waits)
        self.categories: MemoryDocuments[Category] = MemoryDocuments(waits)
        self.popularity: MemoryDocuments[PopularityRecord] = MemoryDocuments(waits)

    async def behind(self, categories: Sequence[Category], limit: int) -> Sequence[str]:
        await asyncio.sleep(0)
        known = {category.category_id: category.version for category in categories}
        behind = [
            product.product_id
            for product in self.shown().values()
            if product.category.version < known.get(product.category.category_id, 0)
        ]
        await asyncio.sleep(0)
        return behind[:limit]

    def shown(self) -> dict[str, Product]:
        return {key: stored.document for key, stored in self.products.documents.items()}

    def known(self) -> dict[str, SkuRecord]:
        return {key: stored.document for key, stored in self.skus.documents.items()}
