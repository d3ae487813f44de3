"""What a generation has of what the owners have: compared by ids and versions.

Each comparison answers two versions by id: the one that the index would have after hearing the owner's news, and the
one that it has. They differ where the index is behind. Where it is ahead they don't: owners go on while they are read,
and their events overtake.
"""

from collections.abc import Mapping

from search_svc.application.ports import Index
from search_svc.application.projection import read_all
from search_svc.domain.product import Category, Product, SkuAvailability, SkuRecord

Versions = Mapping[str, tuple[str, str]]

_MISSING = "-"


async def compare_categories(news: Mapping[str, Category], index: Index) -> Versions:
    stored = await read_all(index.categories, news)
    return {
        key: (f"{known.updated_by(category).version}", f"{known.version}")
        if (known := stored.get(key))
        else (f"{category.version}", _MISSING)
        for key, category in news.items()
    }


async def compare_availability(news: Mapping[str, SkuAvailability], index: Index) -> Versions:
    stored = await read_all(index.skus, news)

    def version(record: SkuRecord) -> str:
        return f"{record.availability.version}" if record.availability else _MISSING

    known = {sku: stored.get(sku, SkuRecord(sku)) for sku in news}
    return {sku: (version(known[sku].available(news[sku])), version(known[sku])) for sku in news}


async def compare_products(news: Mapping[str, Product], index: Index) -> Versions:
    """A product's version goes with those of its parts, as the index itself has them: of its category's path, of its
    popularity, and of the availability of each SKU, whose record must name the product."""
    stored = await read_all(index.products, news)
    newest = {key: stored[key].updated_by(news[key]) if key in stored else news[key] for key in news}
    # The parts after the products: what is told of them since has found the products.
    records = await read_all(index.skus, {sku for product in newest.values() for sku in product.skus})
    categories = await read_all(index.categories, {p.category.category_id for p in newest.values()} - {""})
    popularity = await read_all(index.popularity, newest)
    availability = {sku: record.availability for sku, record in records.items() if record.availability}
    found = {}
    for key, product in newest.items():
        product = product.with_availability(availability).with_category(categories.get(product.category.category_id))
        product = product.with_popularity(popularity[key].popularity if key in popularity else None)
        named = {sku for sku in product.skus if sku in records and key in records[sku].product_ids}
        known = stored.get(key)
        found[key] = _versions(product, product.skus), _versions(known, named) if known else _MISSING
    return found


def _versions(product: Product, named: frozenset[str] | set[str]) -> str:
    parts = [f"{product.version}", "deleted" if product.deleted else "", f"{product.category.version}"]
    parts += [f"{product.popularity.version}", *sorted(named)]
    return " ".join([*parts, *(f"{sku}:{known.version}" for sku, known in sorted(product.availability.items()))])
