"""The catalog's changes as the rest of the shop sees them: imports, categories that move, products that aren't sold."""

import json
import secrets
from pathlib import Path

import grpc
import pytest
from polymart.catalog.v1.catalog_service_pb2 import (
    GetProductRequest,
    ListProductRevisionsRequest,
    UpdateProductRequest,
)
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ARCHIVED, Product
from polymart.catalog.v1.taxonomy_service_pb2 import GetCategoryRequest, UpdateCategoryRequest
from polymart.search.v1.search_service_pb2 import SearchFilter, SearchProductsRequest

from ops.audit.stores import open_stores
from ops.verify import verify
from search_svc.adapters.mappings import PRODUCTS
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop, until


def written(folder: Path, name: str, category: list[str]) -> Path:
    path = folder / "products.jsonl"
    fields = {"price": "2.50", "currency": "GBP", "category_path": category}
    rows = [{"sku": f"{name}-{n}", "name": f"Thing {name}", **fields} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


async def shown(shop: Shop, category: str) -> list[str]:
    request = SearchProductsRequest(filter=SearchFilter(categories=[category]), page_size=100)
    return sorted(hit.product_id for hit in (await shop.clients.search.SearchProducts(request, timeout=TIMEOUT)).hits)


async def test_a_file_is_tried_imported_and_imported_again(shop: Shop, tmp_path: Path) -> None:
    name = f"cat{secrets.token_hex(4)}"
    path = written(tmp_path, name, [name, "Cups"])
    refused = (await polymart(shop, "import", str(path), "--unknown-category", "reject", "--json")).json()
    assert (refused["REJECTED"], refused["rejections"][0]["reason"]) == (
        30, f"category_path: there is no category {name} > Cups",
    )  # fmt: skip
    tried = await polymart(shop, "import", str(path), "--dry-run")
    assert (tried.code, "30 created" in tried.out) == (0, True)
    with pytest.raises(grpc.aio.AioRpcError):
        await shop.clients.catalog.GetProduct(GetProductRequest(product_id=f"{name}-1"), timeout=TIMEOUT)
    done = await polymart(shop, "import", str(path))
    assert "30 created" in done.out
    again = await polymart(shop, "import", str(path))
    assert ("30 unchanged" in again.out, "nothing was written" in again.out) == (True, True)
    revisions = ListProductRevisionsRequest(product_id=f"{name}-1")
    (one,) = (await shop.clients.catalog.ListProductRevisions(revisions, timeout=TIMEOUT)).revisions
    assert one.actor == "polymart import"

    # A table of the same products changes nothing but what it says.
    table = tmp_path / "products.csv"
    table.write_text(
        "No;Name;Price\n" + "\n".join(f"{name}-{n};Thing {name};{'9' if n == 7 else '2,5'}" for n in range(30))
    )
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        f'delimiter = ";"\ndecimal = ","\n[columns]\nsku = "No"\nname = "Name"\nprice = "Price"\n'
        f'[constants]\ncurrency = "GBP"\ncategory_path = "{name}/Cups"\n[separators]\ncategory_path = "/"\n'
    )
    told = await polymart(shop, "import", str(table), "--mapping", str(mapping))
    assert "29 unchanged, 1 updated" in told.out
    missing = await polymart(shop, "import", str(table))
    assert (missing.code, "needs --mapping" in missing.err) == (1, True)


async def test_search_follows_a_category_that_moves(shop: Shop, tmp_path: Path) -> None:
    name, other = (f"cat{secrets.token_hex(4)}" for _ in range(2))
    await polymart(shop, "import", str(written(tmp_path, name, [name, "Cups", "Big"])))
    everything = sorted(f"{name}-{n}" for n in range(30))

    async def found(category: str) -> bool:
        return await shown(shop, category) == everything

    await until(lambda: found(f"{name} > Cups > Big"), "search to have the products in their category")
    product = await shop.clients.catalog.GetProduct(GetProductRequest(product_id=everything[0]), timeout=TIMEOUT)
    big = await shop.clients.taxonomy.GetCategory(GetCategoryRequest(category_id=product.category_id), timeout=TIMEOUT)
    cups = await shop.clients.taxonomy.GetCategory(GetCategoryRequest(category_id=big.parent_id), timeout=TIMEOUT)
    cups.parent_id, cups.name = "", other
    request = UpdateCategoryRequest(category=cups)
    request.update_mask.paths.extend(["parent_id", "name"])
    await shop.clients.taxonomy.UpdateCategory(request, timeout=TIMEOUT)
    await until(lambda: found(f"{other} > Big"), "search to follow")
    assert await shown(shop, name) == []
    await shop.invariants_hold()


async def test_what_is_archived_is_neither_found_nor_sold(shop: Shop) -> None:
    (sku,) = await shop.product(stock=5)
    product_id = sku.rpartition("-")[0]

    async def hits() -> int:
        request = SearchProductsRequest(text=product_id)
        found = (await shop.clients.search.SearchProducts(request, timeout=TIMEOUT)).hits
        return sum(hit.product_id == product_id for hit in found)

    await until(hits, "search to have it")
    await shop.settled(await shop.place(sku))
    change = UpdateProductRequest(product=Product(product_id=product_id, status=PRODUCT_STATUS_ARCHIVED))
    await shop.clients.catalog.UpdateProduct(change, timeout=TIMEOUT)

    async def withdrawn() -> bool:
        return not await hits()

    await until(withdrawn, "search to leave it out")

    async def refused() -> bool:
        try:
            await shop.place(sku)
        except grpc.aio.AioRpcError as error:
            return error.code() == grpc.StatusCode.INVALID_ARGUMENT
        return False

    await until(refused, "orders to be refused")
    await shop.invariants_hold()


async def test_an_altered_path_is_found_by_the_auditor(shop: Shop, tmp_path: Path) -> None:
    name = f"cat{secrets.token_hex(4)}"
    await polymart(shop, "import", str(written(tmp_path, name, [name])))
    await shop.invariants_hold()
    async with open_stores(shop.stack.info()) as stores:
        client = stores.index.client
        original = (await client.get(index=PRODUCTS, id=f"{name}-3"))["_source"]
        await client.index(index=PRODUCTS, id=f"{name}-3", document={**original, "category_version": 10**6})
        findings = (await verify(shop.stack.info())).findings
        await client.index(index=PRODUCTS, id=f"{name}-3", document=original)
    assert any(f"{name}-3" in finding.text and "category" in finding.text for finding in findings)
