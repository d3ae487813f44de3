"""Documents in memory, where every step lets others go first as often as it is told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import count
from typing import Any, Generic

from search_svc.application.ports import D, DocumentRefused, Index, IndexMissing, Stored, Write
from search_svc.domain.popularity import PopularityRecord
from search_svc.domain.product import Category, Product, SkuRecord
from search_svc.domain.rebuild import Layout, Rebuild

_revisions = count(1)


class MemoryDocuments(Generic[D]):
    def __init__(
        self,
        waits: Callable[[], int],
        refused: frozenset[str] = frozenset(),
        documents: "MemoryDocuments[D] | None" = None,
        check: Callable[[], None] = lambda: None,
    ):
        """`documents`: those to share; `check` raises where they may not be touched now."""
        self.documents: dict[str, Stored[D]] = documents.documents if documents else {}
        self.writes = 0
        self._waits = waits
        self._refused = refused
        self._check = check

    async def read(self, keys: Sequence[str]) -> Mapping[str, Stored[D]]:
        await self._wait()
        self._check()
        found = {key: self.documents[key] for key in keys if key in self.documents}
        await self._wait()
        return found

    async def write(self, writes: Sequence[Write[D]]) -> set[str]:
        await self._wait()
        self._check()
        conflicts = set()
        for write in writes:
            current = self.documents.get(write.key)
            if write.key in self._refused:
                continue
            if (current.revision if current else None) != write.revision:
                conflicts.add(write.key)
                continue
            self.writes += 1
            self.documents[write.key] = Stored(write.document, (next(_revisions), 1))
        await self._wait()
        if refused := self._refused.intersection(write.key for write in writes):
            raise DocumentRefused(f"{refused}")
        return conflicts

    async def _wait(self) -> None:
        for _ in range(self._waits()):
            await asyncio.sleep(0)


class MemoryIndex:
    def __init__(self, waits: Callable[[], int] = lambda: 0, refused: frozenset[str] = frozenset()):
        self._waits = waits
        self._refused = refused
        self._check: Callable[[], None] = lambda: None
        self.products: MemoryDocuments[Product] = MemoryDocuments(waits, refused)
        self.skus: MemoryDocuments[SkuRecord] = MemoryDocuments(waits)
        self.categories: MemoryDocuments[Category] = MemoryDocuments(waits)
        self.popularity: MemoryDocuments[PopularityRecord] = MemoryDocuments(waits)

    def while_allowed(self, check: Callable[[], None]) -> "MemoryIndex":
        """The same documents for as long as `check` doesn't raise."""
        view = MemoryIndex(self._waits, self._refused)
        view._check = check
        view.products = MemoryDocuments(self._waits, self._refused, self.products, check)
        view.skus = MemoryDocuments(self._waits, frozenset(), self.skus, check)
        view.categories = MemoryDocuments(self._waits, frozenset(), self.categories, check)
        view.popularity = self.popularity
        return view

    async def behind(self, categories: Sequence[Category], limit: int) -> Sequence[str]:
        await asyncio.sleep(0)
        self._check()
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


class MemoryEngine:
    """What the replicas' MemoryGenerations share. `waits` as for documents."""

    def __init__(self, waits: Callable[[], int] = lambda: 0, refused: frozenset[str] = frozenset()):
        self.indices: dict[int, MemoryIndex] = {}
        self.layout = Layout("")
        self.record: Stored[Rebuild] | None = None
        # Apart from the generations: it is the same to all.
        self.popularity: MemoryDocuments[PopularityRecord] = MemoryDocuments(waits)
        self.waits = waits
        self.refused = refused

    def change(self, **parts: Any) -> None:
        self.layout = replace(self.layout, epoch=f"{next(_revisions)}", **parts)

    def lose(self, generation: int) -> None:
        """With all that the layout said of it."""
        self.indices.pop(generation, None)
        there, gone = self.layout, {generation}
        self.layout = replace(
            there,
            written=there.written - gone,
            filled=there.filled - gone,
            serving=there.serving if there.serving != generation else None,
        )


class MemoryGenerations:
    """Generations in memory, as one replica sees them."""

    def __init__(self, engine: MemoryEngine):
        self._engine = engine
        self._targets: Sequence[Index] | None = None

    async def prepare(self) -> None:
        await self._wait()
        if not self._engine.layout.epoch:
            self._engine.change()

    async def layout(self) -> Layout:
        await self._wait()
        return replace(self._engine.layout, present=frozenset(self._engine.indices))

    async def change(self, seen: Layout, *, written: Set[int], filled: Set[int], serving: int) -> bool:
        await self._wait()
        if not seen.epoch or seen.epoch != self._engine.layout.epoch:
            return False
        there = self._engine.indices.keys()
        self._engine.change(
            written=frozenset(written & there),
            filled=frozenset(filled & there),
            serving=serving if serving in there else None,
        )
        self.forget()
        await self._wait()
        return True

    async def create(self, generation: int) -> None:
        await self._wait()
        made = MemoryIndex(self._engine.waits, self._engine.refused)
        made.popularity = self._engine.popularity
        self._engine.indices.setdefault(generation, made)

    async def delete(self, generation: int) -> None:
        await self._wait()
        self._engine.lose(generation)

    async def delete_earlier(self) -> None:
        await self._wait()

    def name_of(self, generation: int) -> str:
        return f"{generation}"

    async def refresh(self, generation: int) -> None:
        await self._wait()
        self._there(generation)

    async def size(self, generation: int) -> int:
        await self._wait()
        index = self._there(generation)
        stocked = sum(1 for record in index.known().values() if record.availability)
        return len(index.products.documents) + stocked + len(index.categories.documents)

    def index(self, generation: int, epoch: str) -> Index:
        def check() -> None:
            layout = self._engine.layout
            if epoch != layout.epoch or generation not in layout.written:
                raise IndexMissing

        # One that is lost fails each check.
        return self._engine.indices.get(generation, MemoryIndex()).while_allowed(check)

    async def targets(self) -> Sequence[Index]:
        if self._targets is None:
            layout = await self.layout()
            if not layout.written:
                raise IndexMissing
            order = sorted(layout.written, key=lambda generation: generation == layout.serving)
            self._targets = [self.index(generation, layout.epoch) for generation in order]
        return self._targets

    def forget(self) -> None:
        self._targets = None

    async def rebuild(self) -> Stored[Rebuild] | None:
        await self._wait()
        self._prepared()
        return self._engine.record

    async def save(self, rebuild: Rebuild, revision: tuple[int, int] | None) -> tuple[int, int] | None:
        await self._wait()
        self._prepared()
        record = self._engine.record
        if revision != (record.revision if record else None):
            return None
        self._engine.record = record = Stored(rebuild, (next(_revisions), 1))
        await self._wait()
        return record.revision

    def _prepared(self) -> None:
        if not self._engine.layout.epoch:
            raise IndexMissing

    def _there(self, generation: int) -> MemoryIndex:
        if generation not in self._engine.indices:
            raise IndexMissing
        return self._engine.indices[generation]

    async def _wait(self) -> None:
        for _ in range(self._engine.waits()):
            await asyncio.sleep(0)
