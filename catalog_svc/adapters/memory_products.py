"""Products in memory, for tests."""

from collections.abc import AsyncGenerator, Mapping, Sequence

from catalog_svc.application.ports import Saved, SoldVariant
from catalog_svc.domain.product import (
    Product,
    ProductCreated,
    ProductDeleted,
    ProductEvent,
    ProductUpdated,
    Stored,
    Tombstone,
    identity,
)
from catalog_svc.protos import envelope
from chassis.inbox.memory import MemoryTransaction
from chassis.outbox.memory import MemoryOutbox


class MemoryProducts:
    """`Products` that last as long as the object."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}
        self.outbox = MemoryOutbox()

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        return {key: self._stored[key] for key in product_ids if key in self._stored}

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        return {sku: sold.product_id for sku, sold in (await self.variants(skus)).items()}

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        wanted = set(skus)
        return {
            variant.sku: SoldVariant(product.product_id, product.version, product.details.name, variant)
            for product in self._products()
            for variant in product.details.variants
            if variant.sku in wanted
        }

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        return [await self._save(event) for event in events]

    async def page(self, after: str, limit: int, brand: str = "") -> Sequence[Product]:
        # MongoDB orders strings by their UTF-8 bytes, which is the order of their code points.
        products = [p for p in self._products() if p.product_id > after and brand in ("", p.details.brand)]
        return sorted(products, key=lambda product: product.product_id)[:limit]

    async def stream(self, *, include_deleted: bool = False) -> AsyncGenerator[Sequence[Stored], None]:
        for stored in list(self._stored.values()):
            if include_deleted or isinstance(stored, Product):
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
        self._stored[product_id] = after
        tx = MemoryTransaction()
        await self.outbox.add(tx, [envelope(event)])
        tx.commit()
        return Saved.SAVED

    def _products(self) -> list[Product]:
        return [stored for stored in self._stored.values() if isinstance(stored, Product)]
