"""What sells is listed, from the order to the command line, and after the engine lost everything."""

import asyncio

import pytest
from polymart.search.v1.search_service_pb2 import ListTrendingProductsRequest

from ops.audit.stores import open_stores
from ops.verify import verify
from search_svc.adapters.popularity_documents import POPULARITY, SALES
from search_svc.domain.popularity import popularity_of
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop, until

pytestmark = pytest.mark.slow


async def trending(shop: Shop) -> dict[str, int]:
    found: dict[str, int] = {}
    request = ListTrendingProductsRequest(page_size=100)
    while True:
        page = await shop.clients.search.ListTrendingProducts(request, timeout=TIMEOUT)
        found |= {product.product_id: product.units for product in page.products}
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


async def test_an_order_makes_its_product_trend_even_after_the_engine_lost_everything(shop: Shop) -> None:
    (sku,), (other,) = await shop.product(), await shop.product()
    product_id, other_id = sku.rpartition("-")[0], other.rpartition("-")[0]
    orders = [await shop.place(sku, quantity=70), await shop.place(sku, other, quantity=3)]
    orders += [await shop.place(other, quantity=90, token="tok_declined")]
    await asyncio.gather(*map(shop.settled, orders))
    await shop.invariants_hold()

    async def listed() -> bool:
        units = await trending(shop)
        return (units.get(product_id), units.get(other_id)) == (73, 3)

    await until(listed, "the product to trend")
    before = await trending(shop)
    ended = await polymart(shop, "trending", "--limit", "100", "--json")
    shown = {product["product_id"]: int(product["units"]) for product in ended.json()["products"]}
    assert (shown[product_id], shown.get(other_id, 3)) == (73, 3)
    ended = await polymart(shop, "trending")
    assert ended.code == 0, ended
    assert "units" in ended.out

    await shop.stack.kill_engine("elasticsearch")
    await shop.stack.restart_engine("elasticsearch")

    async def same() -> bool:
        return await trending(shop) == before

    await until(same, "the same sums again")
    await shop.serving("search_svc")
    await shop.invariants_hold()
    async with open_stores(shop.stack.info()) as stores:
        record = await stores.index.client.get(index=POPULARITY, id=product_id)
    assert record["_source"]["value"] == popularity_of(73)


# The audit waits a while for sums to settle.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("change", ["units", "cancelled", "gone", "stranger"])
async def test_an_altered_order_that_counts_is_found_and_named(shop: Shop, change: str) -> None:
    (sku,) = await shop.product()
    order = await shop.settled(await shop.place(sku, quantity=2))
    await shop.invariants_hold()
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=SALES, id=order.order_id))["_source"]
        line = {**original["lines"][0], "units": 3}
        try:
            match change:
                case "units":
                    await client.index(index=SALES, id=order.order_id, document={**original, "lines": [line]})
                case "cancelled":
                    await client.index(index=SALES, id=order.order_id, document={**original, "cancelled": 1})
                case "gone":
                    await client.delete(index=SALES, id=order.order_id)
                case "stranger":
                    await client.index(index=SALES, id="stranger", document=original)
            texts = [finding.text for finding in (await verify(shop.stack.info())).findings]
            named = "orders count for popularity" if change == "stranger" else f"order {order.order_id} "
            assert any(named in text for text in texts), texts
            # What it is about follows, as the sums do.
            assert any(text.startswith(f"product {sku.rpartition('-')[0]}: popularity") for text in texts), texts
        finally:
            await client.delete_by_query(index=SALES, query={"ids": {"values": ["stranger"]}}, refresh=True)
            await client.index(index=SALES, id=order.order_id, document=original)
    await shop.invariants_hold()
