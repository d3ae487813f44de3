"""Popularity: what the orders of a sliding window sold, shown in products and listed.

An order is one document by its id, so that messages may come twice, late and in any order. The sums are taken from
those documents each time, never counted up, so that nothing can be counted twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from chassis.clock import Clock
from search_svc.application.ports import Index, Sales, SalesHistory, ShownProducts, Units
from search_svc.application.projection import apply_popularity, record_sales
from search_svc.domain.popularity import Popularity, popularity_of
from search_svc.domain.product import Product

log = structlog.get_logger(__name__)

T = TypeVar("T")

LEASE_SECONDS = 15.0
_CHUNK = 1_000
_LOOKED_UP = 200

Place = tuple[int, str]
"""Where a trending product stands: its units, its id."""


def milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Window:
    """The time over which sales count: the last `length` before now."""

    length: timedelta
    clock: Clock

    @property
    def start(self) -> int:
        return milliseconds(self.clock.now() - self.length)


async def keep_popularity(
    shown: Mapping[str, float] | None,
    *,
    holder: str,
    sales: Sales,
    history: SalesHistory,
    index: Index,
    others: Sequence[Index] = (),
    window: Window,
) -> Mapping[str, float] | None:
    """Bring the popularity of all products up to now, unless another replica does; read the orders of the window again
    first where they were lost.

    `index` is the generation that serves; `others` are shown the same. `shown` is what the last call returned, by
    product; None, after one that failed too, compares with what is recorded rather than trust that. Raises Unavailable,
    Aborted, DocumentRefused.
    """
    if await sales.prepare():
        shown = None
    if not await sales.take(holder, LEASE_SECONDS):
        return None
    if not await sales.filled():
        shown = None
        if not await _read_again(holder, sales, history, window.start):
            return None
    return await _recompute(shown, holder=holder, sales=sales, index=index, others=others, window=window)


async def _read_again(holder: str, sales: Sales, history: SalesHistory, since: int) -> bool:
    log.info("reading the window's orders again")
    async for news in history.sales(since):
        await record_sales(news, orders=sales.orders, since=since)
        # Where they were lost meanwhile, so was what has been read until here.
        if not await sales.renew(holder, LEASE_SECONDS):
            return False
    return await sales.complete(holder)


async def _recompute(
    shown: Mapping[str, float] | None,
    *,
    holder: str,
    sales: Sales,
    index: Index,
    others: Sequence[Index],
    window: Window,
) -> Mapping[str, float] | None:
    since, now = window.start, milliseconds(window.clock.now())
    await sales.forget(since)
    await sales.refresh()
    sold = await units_by_product(await sales.units(since), index=index)
    wanted = {product_id: popularity_of(units) for product_id, units in sold.items()}
    if shown is None:
        # All of it: whoever was here before may have been broken off between a record and its product.
        known = set(wanted) | set(await sales.popular())
    else:
        known = {key for key in wanted.keys() | shown.keys() if wanted.get(key, 0.0) != shown.get(key, 0.0)}
    result = dict(shown or {})
    for keys in _chunks(sorted(known), _CHUNK):
        # Before anything is written: what was just added up may be lost by now, and made anew empty by another.
        if not await sales.renew(holder, LEASE_SECONDS):
            return None
        recorded = await index.popularity.read(keys) if shown is None else {}
        news = {key: Popularity(wanted.get(key, 0.0), now) for key in keys}
        for key, stored in recorded.items():
            if stored.document.popularity.value == news[key].value:
                news[key] = stored.document.popularity
        for other in others:
            await apply_popularity(news, index=other)
        # What another, whose clock is ahead, has recorded stays for now, and is compared again the next time.
        result |= {key: popularity.value for key, popularity in (await apply_popularity(news, index=index)).items()}
    if not await sales.computed(holder, since):
        return None
    return {key: value for key, value in result.items() if value}


async def units_by_product(units: Units, *, index: Index) -> dict[str, int]:
    """Units by product, those of a SKU with the product that has it now; what no product has isn't counted."""
    sold = dict(units.by_product)
    for skus in _chunks(sorted(units.by_sku), _CHUNK):
        records = await index.skus.read(skus)
        product_ids = {key for stored in records.values() for key in stored.document.product_ids}
        products = await index.products.read(sorted(product_ids))
        for stored in products.values():
            for sku in stored.document.skus & set(skus):
                product_id = stored.document.product_id
                sold[product_id] = sold.get(product_id, 0) + units.by_sku[sku]
    return sold


@dataclass(frozen=True, slots=True)
class Trending:
    """Products with the units sold of each, the most first, then by id. `more`: there are others after them."""

    products: Sequence[tuple[Product, int]]
    more: bool


async def trending_products(
    since: int,
    *,
    category: str = "",
    size: int,
    after: Place | None = None,
    sales: Sales,
    index: Index,
    products: ShownProducts,
) -> Trending:
    """What sold most since then, of what shoppers see. Raises IndexMissing, Unavailable."""
    sold = await units_by_product(await sales.units(since), index=index)
    ranking = sorted((-units, product_id) for product_id, units in sold.items())
    if after is not None:
        ranking = [place for place in ranking if place > (-after[0], after[1])]
    found: list[tuple[Product, int]] = []
    for places in _chunks(ranking, _LOOKED_UP):
        shown = await products.shown([product_id for _, product_id in places], category)
        found += [(shown[product_id], -units) for units, product_id in places if product_id in shown]
        if len(found) > size:
            break
    return Trending(found[:size], len(found) > size)


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
