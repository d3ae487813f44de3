"""How news becomes documents.

Each source records its own part first and reads the others' after: a product is written before the availability of its
SKUs, the path of its category and its popularity are read, an availability before the products of its SKU, a path
before the products of its category are searched, a popularity before its product. So whichever of two concurrent
writers comes last sees the other's part, and nothing needs to arrive in order. Every write says which revision it
replaces.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from chassis.errors import Aborted
from search_svc.application.ports import D, Documents, Index, IndexMissing, Targets, Write
from search_svc.domain.popularity import Popularity, PopularityRecord, Sale
from search_svc.domain.product import Category, Product, SkuAvailability, SkuRecord

R = TypeVar("R")

_ATTEMPTS = 10
_CHUNK = 1_000
_SEARCHED_TOGETHER = 100


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[D]):
    """Documents as they are now, and the keys of those that this call changed."""

    documents: Mapping[str, D]
    changed: set[str]


async def apply_everywhere(apply: Callable[[Index], Awaitable[None]], *, targets: Targets) -> None:
    """Apply to every generation that is written. Raises what `apply` does.

    No news misses a generation that is written since this began: by then the others can't be written under the names
    that were known here, so all is applied again to those that are written now.
    """
    for attempt in (1, 2):
        try:
            for index in await targets.targets():
                await apply(index)
            return
        except IndexMissing:
            targets.forget()
            if attempt == 2:
                raise


async def read_serving(read: Callable[[Index], Awaitable[R]], *, targets: Targets) -> R:
    """Read from the generation that serves. Raises what `read` does."""
    try:
        return await read((await targets.targets())[-1])
    except IndexMissing:
        targets.forget()
        return await read((await targets.targets())[-1])


async def apply_products(products: Iterable[Product], *, index: Index) -> None:
    """Record these versions of products, where they are newer than what is there.

    Raises Unavailable, IndexMissing; Aborted when others keep changing the same documents; DocumentRefused.
    """
    newest: dict[str, Product] = {}
    users: defaultdict[str, set[str]] = defaultdict(set)
    for product in products:
        known = newest.get(product.product_id)
        newest[product.product_id] = known.updated_by(product) if known else product
        for sku in product.skus:
            users[sku].add(product.product_id)

    skus = await _change(index.skus, users, lambda sku, known: (known or SkuRecord(sku)).used_by(users[sku]))
    availability = _availability(skus.documents.values())
    categories = await _categories(newest.values(), index)
    popularity = _popularity(await read_all(index.popularity, newest))

    def newer(product_id: str, known: Product | None) -> Product:
        product = newest[product_id]
        product = (known.updated_by(product) if known else product).with_availability(availability)
        product = product.with_category(categories.get(product.category.category_id))
        return product.with_popularity(popularity.get(product_id))

    stored = await _change(index.products, newest, newer)

    # What was recorded meanwhile may have looked for these products before they were there.
    written = [stored.documents[product_id] for product_id in stored.changed]
    records = await read_all(index.skus, {sku for product in written for sku in product.skus})
    await _update_availability(_availability(records.values()), written, index=index)
    await _update_categories(await _categories(written, index), written, index=index)
    recorded = await read_all(index.popularity, (product.product_id for product in written))
    await _update_popularity(_popularity(recorded), written, index=index)


async def apply_categories(news: Iterable[Category], *, index: Index) -> None:
    """Record the paths of categories, where they are newer, and show them in their products. Raises what
    apply_products does.

    However many products there are, this can be broken off anywhere and begun again: each says which path it has.
    """
    newest: dict[str, Category] = {}
    for category in news:
        newest[category.category_id] = newest.get(category.category_id, category).updated_by(category)

    recorded = await _change(
        index.categories, newest, lambda key, known: known.updated_by(newest[key]) if known else newest[key]
    )
    for keys in _chunks(sorted(recorded.documents), _SEARCHED_TOGETHER):
        categories = [recorded.documents[key] for key in keys]
        while behind := await index.behind(categories, _CHUNK):
            products = await read_all(index.products, behind)
            await _update_categories(recorded.documents, products.values(), index=index)


async def apply_availability(news: Iterable[tuple[str, SkuAvailability]], *, index: Index) -> None:
    """Record the availability of SKUs, where it is newer, and show it in the products that have them. Raises what
    apply_products does."""
    newest: dict[str, SkuAvailability] = {}
    for sku, availability in news:
        newest[sku] = SkuAvailability.newer(newest.get(sku), availability) or availability

    skus = await _change(index.skus, newest, lambda sku, known: (known or SkuRecord(sku)).available(newest[sku]))
    product_ids = {product_id for record in skus.documents.values() for product_id in record.product_ids}
    products = await read_all(index.products, product_ids)
    await _update_availability(_availability(skus.documents.values()), products.values(), index=index)


async def apply_popularity(news: Mapping[str, Popularity], *, index: Index) -> Mapping[str, Popularity]:
    """Record the popularity of products, where it is newer, and show it in those that are there. Returns what is
    recorded now. Raises what apply_products does."""
    records = await _change(
        index.popularity, news, lambda key, known: (known or PopularityRecord(key)).updated_by(news[key])
    )
    recorded = _popularity(records.documents)
    products = await read_all(index.products, recorded)
    await _update_popularity(recorded, products.values(), index=index)
    return recorded


async def record_sales(news: Iterable[Sale], *, orders: Documents[Sale], since: int) -> None:
    """Record what is new of orders, but for those that lie before the window. Raises what apply_products does."""
    known: dict[str, Sale] = {}
    for sale in news:
        if sale.time >= since:
            known[sale.order_id] = known[sale.order_id].updated_by(sale) if sale.order_id in known else sale
    await _change(orders, known, lambda key, stored: stored.updated_by(known[key]) if stored else known[key])


async def _update_availability(
    news: Mapping[str, SkuAvailability], products: Iterable[Product], *, index: Index
) -> None:
    behind = [product.product_id for product in products if product.with_availability(news) != product]
    await _change(index.products, behind, lambda _, known: known and known.with_availability(news))


async def _update_categories(news: Mapping[str, Category], products: Iterable[Product], *, index: Index) -> None:
    def shown(product: Product) -> Product:
        return product.with_category(news.get(product.category.category_id))

    behind = [product.product_id for product in products if shown(product) != product]
    await _change(index.products, behind, lambda _, known: known and shown(known))


async def _update_popularity(news: Mapping[str, Popularity], products: Iterable[Product], *, index: Index) -> None:
    def shown(product: Product) -> Product:
        return product.with_popularity(news.get(product.product_id))

    behind = [product.product_id for product in products if shown(product) != product]
    await _change(index.products, behind, lambda _, known: known and shown(known))


async def _categories(products: Iterable[Product], index: Index) -> dict[str, Category]:
    return await read_all(index.categories, {product.category.category_id for product in products} - {""})


def _popularity(records: Mapping[str, PopularityRecord]) -> dict[str, Popularity]:
    return {key: record.popularity for key, record in records.items()}


def _availability(records: Iterable[SkuRecord]) -> dict[str, SkuAvailability]:
    return {record.sku: record.availability for record in records if record.availability}


async def read_all(documents: Documents[D], keys: Iterable[str]) -> dict[str, D]:
    found: dict[str, D] = {}
    for chunk in _chunks(sorted(keys)):
        found.update({key: stored.document for key, stored in (await documents.read(chunk)).items()})
    return found


async def _change(
    documents: Documents[D], keys: Iterable[str], change: Callable[[str, D | None], D | None]
) -> _Outcome[D]:
    """Apply `change` to the document of each key; None, or no difference, writes nothing."""
    result: dict[str, D] = {}
    changed: set[str] = set()
    for chunk in _chunks(sorted(keys)):
        pending: Sequence[str] = chunk
        for attempt in range(1, _ATTEMPTS + 1):
            stored = await documents.read(pending)
            writes = []
            for key in pending:
                current = stored.get(key)
                known = current.document if current else None
                document = change(key, known)
                if document is None:
                    continue
                result[key] = document
                if document != known:
                    writes.append(Write(key, document, current.revision if current else None))
            conflicts = await documents.write(writes) if writes else set()
            changed.update(write.key for write in writes if write.key not in conflicts)
            if not conflicts:
                break
            pending = sorted(conflicts)
            await asyncio.sleep(random.uniform(0, 0.01) * attempt)
        else:
            raise Aborted(f"{len(pending)} documents of the index kept changing")
    return _Outcome(result, changed)


def _chunks(keys: Sequence[str], size: int = _CHUNK) -> Iterable[Sequence[str]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
