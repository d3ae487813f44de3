"""Editors and importers of the same products at once: their events, replayed, are the catalog."""

import asyncio
import random
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.events_pb2 import ProductCreated, ProductDeleted, ProductUpdated
from polymart.catalog.v1.product_pb2 import Product

from tests.integration.catalog.support import Catalog, faults, product

LIMIT = 30.0
IDS, SKUS = "pqr", "abcd"
LOST = {"PRODUCT_EXISTS", "SKU_TAKEN", "PRODUCT_NOT_FOUND", "CONCURRENT_CHANGE", "OUTBOX_FULL", "STALE_ETAG"}


async def edit(catalog: Catalog, rng: random.Random) -> int:
    """Create, rename, change or delete one of the products; 1 where that was done."""
    given = product(rng.choice(IDS), *rng.sample(SKUS, rng.randint(1, 2)), name=f"Mug {rng.random()}")
    stub = catalog.stub
    paths = FieldMask(paths=rng.choice((["name"], ["name", "variants"])))
    call: Any = rng.choice(
        (
            lambda: stub.CreateProduct(messages.CreateProductRequest(product=given), timeout=LIMIT),
            lambda: stub.UpdateProduct(messages.UpdateProductRequest(product=given, update_mask=paths), timeout=LIMIT),
            lambda: stub.DeleteProduct(messages.DeleteProductRequest(product_id=given.product_id), timeout=LIMIT),
        )
    )
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        if faults(error)[1] not in LOST:
            raise
        return 0
    return 1


async def bring(catalog: Catalog, rng: random.Random) -> int:
    """Import a few rows of them; how many were written."""
    rows = [
        messages.ImportProductsRequest(
            row=n,
            product=product(rng.choice(IDS), rng.choice(SKUS), name=f"Jug {rng.randint(1, 3)}"),
            category_path=rng.choice(((), ("Home",), ("Home", "Cups"))),
        )
        for n in range(6)
    ]
    call = catalog.stub.ImportProducts(iter(rows), timeout=LIMIT)
    results = [result async for answer in call for result in answer.results]
    assert sorted(result.row for result in results) == list(range(6))
    return sum(r.outcome in (messages.IMPORT_OUTCOME_CREATED, messages.IMPORT_OUTCOME_UPDATED) for r in results)


@pytest.mark.parametrize("seed", range(3))
async def test_what_editors_and_importers_do_at_once_is_told_version_by_version(catalog: Catalog, seed: int) -> None:
    async def work(actor: int) -> int:
        rng = random.Random(f"{seed} {actor}")
        return sum([await (bring if actor % 3 == 0 else edit)(catalog, rng) for _ in range(12)])

    written = sum(await asyncio.gather(*map(work, range(9))))
    replayed: dict[str, Product] = {}
    versions: dict[str, int] = {}
    for event in await catalog.published():
        if not isinstance(event, ProductCreated | ProductUpdated | ProductDeleted):
            continue
        about: Any = event if isinstance(event, ProductDeleted) else event.product
        assert about.version == versions.get(about.product_id, 0) + 1
        versions[about.product_id] = about.version
        # Created where there was none, and changed or deleted where there was one.
        assert isinstance(event, ProductCreated) == (about.product_id not in replayed)
        if isinstance(event, ProductDeleted):
            del replayed[about.product_id]
        else:
            replayed[about.product_id] = about
    call = catalog.stub.StreamProducts(messages.StreamProductsRequest(), timeout=LIMIT)
    assert replayed == {state.product.product_id: state.product async for answer in call for state in answer.states}
    skus = [variant.sku for each in replayed.values() for variant in each.variants]
    assert len(skus) == len({*skus})
    # Names are new with every edit, so that each that was answered is a version, and nothing else is.
    assert sum(versions.values()) == written > 0
