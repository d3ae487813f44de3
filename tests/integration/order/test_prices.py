"""The local price list on a real PostgreSQL: events in any order, answers of the catalog in between."""

import random

from chassis.money import Money
from chassis.postgres import Postgres
from order_svc.adapters.postgres_prices import PostgresPrices
from order_svc.application.ports import ProductState
from order_svc.application.pricing import update_prices
from order_svc.domain.pricing import Offer


def offer(sku: str, version: int, product_id: str = "p", price: int | None = None) -> Offer:
    pence = version if price is None else price
    return Offer(sku, product_id, version, f"{product_id} v{version}", Money("GBP", pence * 10**7), untracked=False)


def product(version: int, *skus: str, product_id: str = "p") -> ProductState:
    return ProductState(product_id, version, tuple(offer(sku, version, product_id) for sku in skus))


async def heard(db: Postgres, prices: PostgresPrices, *products: ProductState) -> None:
    async with db.transaction() as tx:
        await update_prices(products, prices=prices, tx=tx)


async def known(prices: PostgresPrices, *skus: str) -> dict[str, int]:
    return {sku: offer.product_version for sku, offer in (await prices.offers(skus)).items()}


async def test_the_newest_version_counts_in_whatever_order_they_come(db: Postgres, prices: PostgresPrices) -> None:
    versions = [product(1, "A", "B"), product(2, "B", "C"), product(3, "C", "D"), product(4), product(5, "A", "C")]
    for seed in range(8):
        await db.execute("TRUNCATE products, prices")
        random.Random(seed).shuffle(versions)
        await heard(db, prices, *versions[:2])
        for one in versions[2:]:
            await heard(db, prices, one, one)
        assert await known(prices, "A", "B", "C", "D") == {"A": 5, "C": 5}


async def test_a_deleted_product_stays_deleted(db: Postgres, prices: PostgresPrices) -> None:
    await heard(db, prices, product(2))
    await heard(db, prices, product(1, "A"))
    await prices.remember([offer("A", 1)])
    assert await known(prices, "A") == {}
    await heard(db, prices, product(3, "A"))
    assert await known(prices, "A") == {"A": 3}


async def test_what_the_catalog_answered_is_kept_until_something_newer_is_heard(
    db: Postgres, prices: PostgresPrices
) -> None:
    await prices.remember([offer("A", 3), offer("X", 1, "q")])
    await heard(db, prices, product(2, "A", "B"))
    assert await known(prices, "A", "B", "X") == {"A": 3, "B": 2, "X": 1}
    await prices.remember([offer("A", 1)])
    assert await known(prices, "A") == {"A": 3}
    await heard(db, prices, product(3, "A", "B"))
    assert await known(prices, "A", "B") == {"A": 3, "B": 3}
    await heard(db, prices, product(4, "B"))
    assert await known(prices, "A", "B") == {"B": 4}


async def test_a_sku_that_moved_is_asked_for_until_both_products_have_been_heard(
    db: Postgres, prices: PostgresPrices
) -> None:
    await heard(db, prices, product(1, "A"))
    await heard(db, prices, product(1, "A", product_id="q"))
    assert await known(prices, "A") == {}
    await heard(db, prices, product(2))
    assert (await prices.offers(["A"]))["A"].product_id == "q"
