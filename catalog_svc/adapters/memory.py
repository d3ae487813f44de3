"""Products, categories and product types in memory, for tests."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from catalog_svc.application.ports import (
    MAX_REVISIONS,
    Filter,
    Order,
    Position,
    Requested,
    Saved,
    SoldVariant,
)
from catalog_svc.domain.category import Category, Tree
from catalog_svc.domain.product import (
    Product,
    ProductCreated,
    ProductDeleted,
    ProductEvent,
    ProductUpdated,
    Request,
    Revision,
    Stored,
    Tombstone,
    identity,
    revision,
)
from catalog_svc.domain.product_type import ProductType
from catalog_svc.protos import category_envelope, envelope
from chassis.inbox.memory import MemoryTransaction
from chassis.messaging.envelope import Envelope
from chassis.outbox.memory import MemoryOutbox


class MemoryProducts:
    """`Products` that last as long as the object."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}
        self._requests: dict[str, Request] = {}
        self._revisions: dict[str, list[Revision]] = {}
        self.outbox = MemoryOutbox()

    @asynccontextmanager
    async def trial(self) -> AsyncGenerator["MemoryProducts", None]:
        other = MemoryProducts()
        other._stored = dict(self._stored)
        yield other

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {key: self._stored[key] for key in product_ids if key in self._stored}

    async def requested(self, request_id: str) -> Requested | None:
        found = (Requested(key, r.fingerprint) for key, r in self._requests.items() if r.id == request_id)
        return next(found, None)

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        return {sku: sold.product_id for sku, sold in (await self.variants(skus)).items()}

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        wanted = set(skus)
        return {
            v.sku: SoldVariant(p.product_id, p.version, p.details.name, p.details.status, v, p.details.tax_class)
            for p in self._products()
            for v in p.details.variants
            if v.sku in wanted
        }

    async def revisions(self, product_id: str) -> Sequence[Revision] | None:
        known = self._revisions.get(product_id)
        return known and known[::-1]

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        return [await self._save(event) for event in events]

    async def page(self, which: Filter, order: Order, after: Position | None, limit: int) -> Sequence[Product]:
        # MongoDB orders strings by their UTF-8 bytes, which is the order of their code points.
        def key(product: Product | Position) -> tuple[object, ...]:
            return (product.product_id,) if order is Order.BY_ID else (product.update_time, product.product_id)

        backwards = order is Order.LATEST_CHANGE_FIRST
        products = sorted((p for p in self._products() if _passes(p, which)), key=key, reverse=backwards)
        if after:
            limit_key = key(after)
            products = [p for p in products if (key(p) < limit_key if backwards else key(p) > limit_key)]
        return products[:limit]

    async def stream(self, *, include_deleted: bool = False, after: str = "") -> AsyncGenerator[Sequence[Stored], None]:
        for product_id, stored in sorted(self._stored.items()):
            if product_id > after and (include_deleted or isinstance(stored, Product)):
                yield [stored]

    async def _save(self, event: ProductEvent) -> Saved:
        product_id, version = identity(event)
        before = self._stored.get(product_id)
        if (before.version if before else 0) != version - 1:
            return Saved.STALE
        match event:
            case ProductDeleted():
                after: Stored = Tombstone(product_id, version)
            case ProductCreated(product) | ProductUpdated(product):
                holders = await self.holders(product.details.skus)
                if any(holder != product_id for holder in holders.values()):
                    return Saved.SKU_TAKEN
                after = product
        if isinstance(event, ProductCreated):
            if event.request and await self.requested(event.request.id):
                return Saved.STALE
            self._requests.pop(product_id, None)
            if event.request:
                self._requests[product_id] = event.request
        self._stored[product_id] = after
        self._revisions[product_id] = [*self._revisions.get(product_id, ()), revision(event)][-MAX_REVISIONS:]
        await _publish(self.outbox, [envelope(event)])
        return Saved.SAVED

    def _products(self) -> list[Product]:
        return [stored for stored in self._stored.values() if isinstance(stored, Product)]


class MemoryTaxonomy:
    """`Taxonomy` that lasts as long as the object."""

    def __init__(self) -> None:
        self._tree = Tree()
        self._types: dict[str, ProductType] = {}
        self.outbox = MemoryOutbox()

    async def tree(self) -> Tree:
        return self._tree

    async def commit(self, before: Tree, category: Category) -> bool:
        if before.version != self._tree.version:
            return False
        self._tree = self._tree.with_(category)
        return True

    async def tell(self, categories: Sequence[Category]) -> int:
        known = dict(self._tree.categories)
        newer = [c for c in categories if c.path_version > known[c.category_id].path_version]
        for told in newer:
            current = known[told.category_id]
            known[told.category_id] = replace(current, path=told.path, path_version=told.path_version)
        self._tree = replace(self._tree, categories=known)
        await _publish(self.outbox, map(category_envelope, newer))
        return len(newer)

    async def all_told(self, version: int) -> None:
        self._tree = replace(self._tree, told=max(version, self._tree.told))

    async def types(self, product_type_ids: Collection[str]) -> Mapping[str, ProductType]:
        return {key: self._types[key] for key in product_type_ids if key in self._types}

    async def save_type(self, type_: ProductType) -> bool:
        before = self._types.get(type_.product_type_id)
        if (before.version if before else 0) != type_.version - 1:
            return False
        self._types[type_.product_type_id] = type_
        return True

    async def type_page(self, after: str, limit: int) -> Sequence[ProductType]:
        return [type_ for key, type_ in sorted(self._types.items()) if key > after][:limit]


async def _publish(outbox: MemoryOutbox, envelopes: Iterable[Envelope]) -> None:
    tx = MemoryTransaction()
    await outbox.add(tx, list(envelopes))
    tx.commit()


def _passes(product: Product, which: Filter) -> bool:
    details = product.details
    return (
        (not which.category_ids or details.category_id in which.category_ids)
        and which.product_type_id in ("", details.product_type_id)
        and which.brand in ("", details.brand)
        and which.status in (None, details.status)
        and (which.updated_since is None or product.update_time >= which.updated_since)
    )
