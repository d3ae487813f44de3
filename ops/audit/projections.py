"""Projections against their sources: the search index and the orders' price list against catalog and stock."""

import reprlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from catalog_svc.domain.category import Tree
from catalog_svc.domain.product import Product, Status, Stored, Tombstone
from chassis.money import Money
from ops.audit.report import Report
from ops.audit.stores import Stores
from search_svc.adapters.documents import category_to_document, product_to_document, sku_to_document
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from search_svc.domain.product import Availability, Category, SkuAvailability, SkuRecord, Variant
from search_svc.domain.product import Product as Indexed

_PAGE = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Which audit_popularity compares.
_POPULARITY = ("popularity", "rest.popularity_version")

_ANNOUNCED = "SELECT sku, availability, availability_version FROM items WHERE availability IS NOT NULL"
_STOCK = f"{_ANNOUNCED} AND sku = ANY ($1::text[])"
_STOCK_PAGE = f"{_ANNOUNCED} AND sku > $1 ORDER BY sku LIMIT {_PAGE}"
_VERSIONS = "SELECT product_id, version FROM products WHERE product_id = ANY ($1::text[])"
_PRICES = """
SELECT product_id, sku, product_version, product_name, currency, price_nanos, untracked, tax_class
FROM prices
WHERE product_id = ANY ($1::text[])
"""
_PRICED = "SELECT product_id FROM products UNION SELECT product_id FROM prices"


async def audit_projections(stores: Stores, report: Report) -> None:
    tree = await stores.taxonomy.tree()
    shown = await _indices(stores.index)
    index_faults: list[str] = []
    price_faults: list[str] = []
    known: set[str] = set()
    async for page in stores.products.stream(include_deleted=True):
        ids = [product.product_id for product in page]
        known.update(ids)
        skus = [v.sku for product in page if isinstance(product, Product) for v in product.details.variants]
        stock = _availability(await stores.inventory.fetch(_STOCK, skus))
        versions = {row["product_id"]: row["version"] for row in await stores.orders.fetch(_VERSIONS, ids)}
        prices = defaultdict[str, dict[str, Any]](dict)
        for row in await stores.orders.fetch(_PRICES, ids):
            prices[row["product_id"]][row["sku"]] = _price(row)
        for where, names in shown.items():
            documents = await _documents(stores.index, names[PRODUCTS], ids)
            for product in page:
                index_faults += _index_faults(product, documents.get(product.product_id), stock, tree, where)
        for product in page:
            key = product.product_id
            price_faults += _price_faults(product, versions.get(key), prices[key])
    report.add("the index equals its sources", len(known), index_faults)
    for where, names in shown.items():
        strangers = [fault async for fault in _strangers(stores.index, names[PRODUCTS], known, where)]
        parts = [fault async for fault in _part_faults(stores, tree, names, where)]
        report.add("the index equals its sources", 0, [*strangers, *parts])
    priced = {row["product_id"] for row in await stores.orders.fetch(_PRICED)}
    price_faults += [f"product {key} is in the price list and not in the catalog" for key in sorted(priced - known)]
    report.add("the price list equals the catalog", len(known), price_faults)


def _availability(rows: Sequence[asyncpg.Record]) -> dict[str, SkuAvailability]:
    return {row["sku"]: SkuAvailability(Availability[row["availability"]], row["availability_version"]) for row in rows}


async def _indices(engine: Engine) -> dict[str, Mapping[str, str]]:
    """The names of the indices that searches read and, where they are kept, of the old ones, by kind."""
    indices = Indices(engine)
    found: dict[str, Mapping[str, str]] = {"the index": {kind: kind for kind in (PRODUCTS, PARTS, CATEGORIES)}}
    if (spare := (await indices.layout()).spare) is not None:
        found["the old index"] = indices.names_of(spare)
    return found


async def _documents(engine: Engine, alias: str, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    if not keys:
        return {}
    answer = await engine.client.mget(index=alias, ids=keys, realtime=True)
    return {item["_id"]: item["_source"] for item in answer["docs"] if item.get("found")}


async def _strangers(engine: Engine, index: str, known: set[str], where: str) -> AsyncIterator[str]:
    """Documents of products that the catalog never had."""
    await engine.client.indices.refresh(index=index, ignore_unavailable=True)
    after: Sequence[Any] | None = None
    while True:
        answer = await engine.client.search(
            index=index,
            size=_PAGE,
            sort=[{"product_id": "asc"}],
            search_after=after,
            source=False,
            track_total_hits=False,
            ignore_unavailable=True,
        )
        hits = answer["hits"]["hits"]
        for hit in hits:
            if hit["_id"] not in known:
                yield f"product {hit['_id']} is in {where} and not in the catalog"
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]


async def _part_faults(stores: Stores, tree: Tree, names: Mapping[str, str], where: str) -> AsyncIterator[str]:
    """What the index holds by SKU and by category, whether or not a product has them."""
    announced, last = 0, ""
    while stock := _availability(await stores.inventory.fetch(_STOCK_PAGE, last)):
        announced += len(stock)
        last = list(stock)[-1]
        parts = await _documents(stores.index, names[PARTS], list(stock))
        for sku, availability in stock.items():
            # Which products ever had it, nobody else remembers.
            part = {**parts.get(sku, {}), "product_ids": []}
            if differing := _differing(part, sku_to_document(SkuRecord(sku, availability))):
                yield f"SKU {sku}: {differing} in {where}"
    for start in range(0, len(tree.categories), _PAGE):
        keys = list(tree.categories)[start : start + _PAGE]
        documents = await _documents(stores.index, names[CATEGORIES], keys)
        for key in keys:
            category = Category(key, tree.path(key), tree.categories[key].path_version)
            if differing := _differing(documents.get(key, {}), category_to_document(category)):
                yield f"category {key}: {differing} in {where}"
    counted = await stores.index.client.count(
        index=names[PARTS], query={"exists": {"field": "version"}}, ignore_unavailable=True
    )
    if counted["count"] > announced:
        yield f"{where} has the availability of {counted['count']} SKUs, {announced} were announced"


def _index_faults(
    product: Stored,
    document: Mapping[str, Any] | None,
    stock: Mapping[str, SkuAvailability],
    tree: Tree,
    where: str,
) -> Iterator[str]:
    name = f"product {product.product_id}"
    if document is None:
        if not isinstance(product, Tombstone):
            yield f"{name} is not in {where}"
        return
    if document.get("version") != product.version:
        yield f"{name} is at version {product.version}, {where} at {document.get('version')}"
        return
    if isinstance(product, Tombstone):
        expected = product_to_document(Indexed(product.product_id, product.version, deleted=True))
    else:
        expected = product_to_document(_indexed(product, stock, tree))
        category_id = product.details.category_id
        if category_id and category_id not in tree.categories:
            yield f"{name}: its category {category_id} isn't in the catalog"
    if differing := _differing(_flat(document), _flat(expected)):
        yield f"{name}: {differing} in {where}"


def _indexed(product: Product, stock: Mapping[str, SkuAvailability], tree: Tree) -> Indexed:
    """The product as search should know it."""
    details = product.details
    if category := tree.categories.get(details.category_id):
        shown = Category(category.category_id, tuple(tree.path(category.category_id)), category.path_version)
    else:
        shown = Category(details.category_id)
    return Indexed(
        product.product_id,
        product.version,
        active=details.status is Status.ACTIVE,
        created=(product.create_time - _EPOCH) // timedelta(microseconds=1),
        name=details.name,
        description=details.description,
        brand=details.brand,
        category=shown,
        tags=details.tags,
        attributes=details.attributes,
        variants=tuple(Variant(v.sku, v.price, v.name, v.eans, v.untracked, v.options) for v in details.variants),
        availability={sku: stock[sku] for sku in details.skus if sku in stock},
    )


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document's fields, those of `rest` as `rest.name`."""
    fields = {f"rest.{name}": value for name, value in document.get("rest", {}).items()}
    fields |= {name: value for name, value in document.items() if name != "rest"}
    return {name: value for name, value in fields.items() if name not in _POPULARITY}


def _price_faults(product: Stored, version: int | None, prices: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    name = f"product {product.product_id}"
    if version != product.version:
        yield f"{name} is at version {product.version}, the price list at {version}"
    sold: dict[str, dict[str, Any]] = {}
    if isinstance(product, Product) and product.details.status is Status.ACTIVE:
        details = product.details
        known = {"product_version": product.version, "product_name": details.name, "tax_class": details.tax_class}
        sold = {v.sku: {**known, "price": str(v.price), "untracked": v.untracked} for v in details.variants}
    for sku in sorted(sold.keys() | prices.keys()):
        if sku not in prices:
            yield f"SKU {sku} of {name} has no price in the price list"
        elif sku not in sold:
            yield f"SKU {sku} of {name} has a price and isn't sold"
        elif differing := _differing(prices[sku], sold[sku]):
            yield f"SKU {sku} of {name}: {differing} in the price list"


def _price(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "product_version": row["product_version"],
        "product_name": row["product_name"],
        "price": str(Money(row["currency"], row["price_nanos"])),
        "untracked": row["untracked"],
        "tax_class": row["tax_class"],
    }


def _differing(had: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The fields that differ, with what they are and should be; empty where none does."""
    return ", ".join(
        f"{name} is {reprlib.repr(had.get(name))} instead of {reprlib.repr(expected.get(name))}"
        for name in sorted(expected.keys() | had.keys())
        if had.get(name) != expected.get(name)
    )
