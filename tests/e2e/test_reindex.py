"""`polymart reindex` on a shop that is open: edits and flips go on, and both indices equal their sources."""

import asyncio

from polymart.catalog.v1.catalog_service_pb2 import GetProductRequest, UpdateProductRequest
from polymart.catalog.v1.product_pb2 import Product
from polymart.inventory.v1.inventory_service_pb2 import SetStockRequest, StockCount
from polymart.search.v1.search_service_pb2 import GetIndexStatusRequest, SearchProductsRequest

from chassis.consistency import METADATA
from ops.audit.stores import open_stores
from ops.verify import verify
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop


async def test_a_rebuild_its_rollback_and_the_end_of_the_old_index(shop: Shop) -> None:
    skus = [(await shop.product(stock=10))[0] for _ in range(5)]
    stopped = asyncio.Event()

    async def trade() -> int:
        changes = 0
        while not stopped.is_set():
            sku = skus[changes % len(skus)]
            product_id = sku.rpartition("-")[0]
            renamed = Product(product_id=product_id, name=f"Renamed {changes}")
            await shop.clients.catalog.UpdateProduct(UpdateProductRequest(product=renamed), timeout=TIMEOUT)
            counts = [StockCount(sku=sku, on_hand=changes % 2 * 50)]
            await shop.clients.inventory.SetStock(SetStockRequest(counts=counts), timeout=TIMEOUT)
            found = await shop.clients.search.SearchProducts(SearchProductsRequest(text="renamed"), timeout=TIMEOUT)
            assert found.total_size or not changes
            changes += 1
        return changes

    trading = asyncio.create_task(trade())
    before = (await shop.clients.search.GetIndexStatus(GetIndexStatusRequest(), timeout=TIMEOUT)).index
    told = (await polymart(shop, "reindex", "--json")).json()
    assert told["rebuild"]["step"] == "REBUILD_STEP_DONE"
    assert told["old_index"] == before != told["index"]
    stopped.set()
    assert await trading
    await shop.invariants_hold()

    product_id = skus[0].rpartition("-")[0]
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=before, id=product_id))["_source"]
        try:
            await client.index(index=before, id=product_id, document={**original, "name": "altered"})
            (finding,) = (await verify(shop.stack.info())).findings
            assert finding.text.startswith(f"product {product_id}: name is 'altered'")
            assert finding.text.endswith("in the old index")
        finally:
            await client.index(index=before, id=product_id, document=original)

    shown = (await polymart(shop, "reindex", "--rollback")).out
    assert f"searches read {before}" in shown
    assert f"{told['index']} is kept" in shown
    await shop.invariants_hold()
    shown = (await polymart(shop, "reindex", "--drop-old")).out
    assert f"searches read {before}" in shown
    assert "kept" not in shown
    await shop.invariants_hold()


async def test_a_write_is_found_by_who_waits_for_it(shop: Shop) -> None:
    (sku,) = await shop.product()
    product_id = sku.rpartition("-")[0]
    request = UpdateProductRequest(product=Product(product_id=product_id, name="Found at once"))
    call = shop.clients.catalog.UpdateProduct(request, timeout=TIMEOUT)
    written = await call
    token = str(dict(await call.trailing_metadata())[METADATA])
    search = SearchProductsRequest(text=sku, consistency_token=token)
    hits = (await shop.clients.search.SearchProducts(search, timeout=TIMEOUT)).hits
    (hit,) = (hit for hit in hits if hit.product_id == product_id)
    assert (hit.product_id, hit.name, hit.product_version) == (product_id, "Found at once", written.version)
    reading = GetProductRequest(product_id=product_id)
    assert (await shop.clients.catalog.GetProduct(reading, timeout=TIMEOUT)).version == written.version
