"""Projections against their sources: the search index and the orders' price list against catalog and stock."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from elasticsearch import NotFoundError

from catalog_svc.domain.category import Tree
from catalog_svc.domain.product import Status, Stored, Tombstone
from catalog_svc.domain.product import Variant as CatalogVariant
from chassis.money import Money
from ops.audit.report import Report
from ops.audit.stores import Stores
from search_svc.adapters.documents import product_from_document
from search_svc.adapters.engine import Engine
from search_svc.adapters.schema import PRODUCTS
from search_svc.domain.product import Product as Indexed
from search_svc.domain.product import Variant as IndexedVariant

_PAGE = 1000


async def audit_projections(stores: Stores, report: Report) -> None:
    indexed = {product.product_id: product async for product in _indexed(stores.index)}
    stock = {
        row["sku"]: (row["availability"], row["availability_version"])
        for row in await stores.inventory.fetch(
            "SELECT sku, availability, availability_version FROM items WHERE availability IS NOT NULL"
        )
    }
    prices = {(row["product_id"], row["sku"]): row for row in await stores.orders.fetch("SELECT * FROM prices")}
    tree = await stores.taxonomy.tree()
    index_faults: list[str] = []
    price_faults: list[str] = []
    checked = 0
    async for page in stores.products.stream(include_deleted=True):
        for product in page:
            checked += 1
            index_faults += _index_faults(product, indexed.pop(product.product_id, None), stock, tree)
            price_faults += _price_faults(product, prices)
    index_faults += [f"product {product_id} is in the index and not in the catalog" for product_id in indexed]
    price_faults += [
        f"SKU {sku} of product {product_id} has a price and isn't in the catalog" for product_id, sku in prices
    ]
    report.add("the index equals its sources", checked, index_faults)
    report.add("the price list equals the catalog", checked, price_faults)


async def _indexed(engine: Engine) -> AsyncIterator[Indexed]:
    """Every document of the index, tombstones too."""
    after: Sequence[Any] | None = None
    while True:
        try:
            await engine.client.indices.refresh(index=PRODUCTS)
            answer = await engine.client.search(
                index=PRODUCTS, size=_PAGE, sort=[{"product_id": "asc"}], search_after=after, track_total_hits=False
            )
        except NotFoundError:
            return
        hits = answer["hits"]["hits"]
        for hit in hits:
            yield product_from_document(hit["_source"])
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]


def _index_faults(
    product: Stored, indexed: Indexed | None, stock: Mapping[str, tuple[str, int]], tree: Tree
) -> Iterator[str]:
    name = f"product {product.product_id}"
    if indexed is None:
        if not isinstance(product, Tombstone):
            yield f"{name} is not in the index"
        return
    if indexed.version != product.version or indexed.deleted != isinstance(product, Tombstone):
        yield f"{name} is at version {product.version}, the index at {indexed.version}"
        return
    if isinstance(product, Tombstone):
        return
    details = product.details
    pairs = {
        "name": (details.name, indexed.name),
        "description": (details.description, indexed.description),
        "brand": (details.brand, indexed.brand),
        "status": (details.status is Status.ACTIVE, indexed.active),
        "category": (details.category_id, indexed.category.category_id),
        "tags": (details.tags, indexed.tags),
        "attributes": (dict(details.attributes), dict(indexed.attributes)),
        "variants": (_variants(details.variants), _variants(indexed.variants)),
    }
    for field, (source, copy) in pairs.items():
        if source != copy:
            yield f"{name}: {field} in the index differs from the catalog's"
    if category := tree.categories.get(details.category_id):
        path = tree.path(category.category_id)
        if (indexed.category.path, indexed.category.version) != (path, category.path_version):
            yield (
                f"{name}: the index has its category as {indexed.category.path} at version {indexed.category.version}, "
                f"the catalog as {path} at {category.path_version}"
            )
    elif details.category_id:
        yield f"{name}: its category {details.category_id} isn't in the catalog"
    for sku in (variant.sku for variant in details.variants):
        known = indexed.availability.get(sku)
        seen = (known.level.name, known.version) if known else None
        if seen != stock.get(sku):
            yield f"{name}: the index has SKU {sku} as {seen}, the stock as {stock.get(sku)}"


def _variants(variants: Sequence[CatalogVariant] | Sequence[IndexedVariant]) -> list[tuple[object, ...]]:
    return [(v.sku, v.price, v.name, tuple(v.eans), v.untracked, dict(v.options)) for v in variants]


def _price_faults(product: Stored, prices: dict[tuple[str, str], Any]) -> Iterator[str]:
    if isinstance(product, Tombstone) or product.details.status is not Status.ACTIVE:
        return
    for variant in product.details.variants:
        row = prices.pop((product.product_id, variant.sku), None)
        if row is None:
            yield f"SKU {variant.sku} has no price in the price list"
        elif (row["currency"], row["price_nanos"]) != (variant.price.currency, variant.price.nanos):
            listed = Money(row["currency"], row["price_nanos"])
            yield f"SKU {variant.sku} costs {variant.price}, in the price list {listed}"
        elif row["untracked"] != variant.untracked:
            yield f"SKU {variant.sku} differs in tracking between catalog and price list"
