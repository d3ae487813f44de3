"""CatalogService over gRPC, MongoDB's protocol and NATS."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain
from itertools import product as product_of

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.events_pb2 import ProductCreated, ProductDeleted, ProductUpdated
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_DRAFT, AttributeValue, Product

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from catalog_svc.application.products import New, create_product
from catalog_svc.bootstrap import migrate
from catalog_svc.config import CatalogConfig
from catalog_svc.domain.product import Details, Variant
from chassis.clock import SystemClock
from chassis.ids import uuid7
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.money import Money as Price
from chassis.rpc.paging import fingerprint
from chassis.signing import sign
from tests.integration.catalog.support import STREAM, TOKEN_KEY, Catalog, events, faults, product, refusal

LIMIT = 10.0


async def create(catalog: Catalog, given: Product) -> Product:
    return await catalog.stub.CreateProduct(messages.CreateProductRequest(product=given), timeout=LIMIT)


async def get(catalog: Catalog, product_id: str) -> Product:
    return await catalog.stub.GetProduct(messages.GetProductRequest(product_id=product_id), timeout=LIMIT)


async def update(catalog: Catalog, given: Product, *paths: str) -> Product:
    request = messages.UpdateProductRequest(product=given, update_mask=FieldMask(paths=paths))
    return await catalog.stub.UpdateProduct(request, timeout=LIMIT)


async def delete(catalog: Catalog, product_id: str, etag: str = "") -> None:
    request = messages.DeleteProductRequest(product_id=product_id, etag=etag)
    await catalog.stub.DeleteProduct(request, timeout=LIMIT)


async def send(catalog: Catalog, rows: list[tuple[int, Product]]) -> dict[int, messages.ImportResult]:
    requests = [messages.ImportProductsRequest(row=number, product=given) for number, given in rows]
    call = catalog.stub.ImportProducts(iter(requests), timeout=30)
    return {result.row: result async for response in call for result in response.results}


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_life_of_a_product(
    start_catalog: Callable[..., Awaitable[Catalog]], config: CatalogConfig, driver: str
) -> None:
    catalog = await start_catalog(config.model_copy(update={"mongodb_driver": driver}))
    given = product("p/1 ü", "a", "b", brand="Acme", tags=["new"], status=PRODUCT_STATUS_DRAFT)
    given.attributes["colour.main"].text = "blue"
    given.attributes["height"].number = 9.5
    given.attributes["$dishwasher"].flag = True
    created = await create(catalog, given)
    assert (created.version, created.attributes, created.variants) == (1, given.attributes, given.variants)
    assert (created.tags, created.status) == (["new"], PRODUCT_STATUS_DRAFT)
    assert created.etag
    assert created.create_time == created.update_time
    assert await get(catalog, "p/1 ü") == created

    updated = await update(catalog, Product(product_id="p/1 ü", name="Cup", etag=created.etag))
    assert (updated.name, updated.brand, updated.version) == ("Cup", "Acme", 2)
    assert updated.etag != created.etag
    await delete(catalog, "p/1 ü", updated.etag)
    assert await refusal(get(catalog, "p/1 ü")) == ("NOT_FOUND", "PRODUCT_NOT_FOUND", set())
    again = await create(catalog, product("p/1 ü", "b"))
    assert again.version == 4

    expected: list[Message] = [
        ProductCreated(product=created),
        ProductUpdated(product=updated),
        ProductDeleted(product_id="p/1 ü", version=3),
        ProductCreated(product=again),
    ]
    assert await catalog.published() == expected


async def test_bad_input_lists_every_violation(catalog: Catalog) -> None:
    bad = Product(product_id="x" * 129, tags=[""])
    bad.attributes["size"].CopyFrom(AttributeValue(number=float("nan")))
    bad.attributes["none"].CopyFrom(AttributeValue())
    for sku in ("a", "a", ""):
        bad.variants.add(sku=sku, eans=["123"])
    bad.variants[1].price.currency_code = "pound"
    bad.variants[2].price.currency_code, bad.variants[2].price.units = "GBP", -1
    fields = {
        "product.product_id", "product.name", "product.tags[0]",
        'product.attributes["size"]', 'product.attributes["none"]',
        "product.variants[0].price", "product.variants[1].price", "product.variants[2].price",
        "product.variants[1].sku", "product.variants[2].sku",
        "product.variants[0].eans[0]", "product.variants[1].eans[0]", "product.variants[2].eans[0]",
    }  # fmt: skip
    assert await refusal(create(catalog, bad)) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", fields)
    assert await refusal(update(catalog, bad, "*")) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT", fields)
    some = await refusal(update(catalog, bad, "name", "etag", "colour", "attributes"))
    assert some[2] == {
        "product.product_id", "product.name", 'product.attributes["size"]', 'product.attributes["none"]',
        "update_mask.paths[1]", "update_mask.paths[2]",
    }  # fmt: skip


async def test_requests_are_checked(catalog: Catalog) -> None:
    stub = catalog.stub
    calls: list[tuple[Awaitable[object], set[str]]] = [
        (stub.CreateProduct(messages.CreateProductRequest(), timeout=LIMIT), {"product"}),
        (stub.UpdateProduct(messages.UpdateProductRequest(), timeout=LIMIT), {"product"}),
        (stub.GetProduct(messages.GetProductRequest(), timeout=LIMIT), {"product_id"}),
        (stub.DeleteProduct(messages.DeleteProductRequest(), timeout=LIMIT), {"product_id"}),
        (stub.BatchGetProducts(messages.BatchGetProductsRequest(), timeout=LIMIT), {"product_ids"}),
        (
            stub.BatchGetProducts(messages.BatchGetProductsRequest(product_ids=["p"] * 501), timeout=LIMIT),
            {"product_ids"},
        ),
        (stub.BatchGetVariants(messages.BatchGetVariantsRequest(skus=["s"] * 2_001), timeout=LIMIT), {"skus"}),
        (stub.ListProducts(messages.ListProductsRequest(page_size=-1), timeout=LIMIT), {"page_size"}),
        (
            stub.ListProducts(messages.ListProductsRequest(page_token="what?", page_size=-1), timeout=LIMIT),
            {"page_size", "page_token"},
        ),
    ]
    for call, fields in calls:
        code, _, violated = await refusal(call)
        assert (code, violated) == ("INVALID_ARGUMENT", fields)


async def test_what_is_unknown_is_not_found_and_what_is_taken_exists(catalog: Catalog) -> None:
    await create(catalog, product("p", "a"))
    assert (await refusal(get(catalog, "q")))[0] == "NOT_FOUND"
    assert (await refusal(delete(catalog, "q")))[0] == "NOT_FOUND"
    assert (await refusal(update(catalog, product("q", "b"))))[0] == "NOT_FOUND"
    assert (await refusal(create(catalog, product("p", "b"))))[:2] == ("ALREADY_EXISTS", "PRODUCT_EXISTS")
    assert (await refusal(create(catalog, product("q", "b", "a"))))[:2] == ("ALREADY_EXISTS", "SKU_TAKEN")


async def test_of_concurrent_updates_with_one_etag_one_wins(catalog: Catalog) -> None:
    before = await create(catalog, product("p", "a"))
    rivals = [product("p", "a", name=f"Mug {n}", etag=before.etag) for n in range(8)]
    results = await asyncio.gather(*(update(catalog, rival) for rival in rivals), return_exceptions=True)
    failures = [faults(r)[:2] for r in results if isinstance(r, grpc.aio.AioRpcError)]
    assert failures == [("ABORTED", "STALE_ETAG")] * 7
    after = await get(catalog, "p")
    assert after in results
    assert (await refusal(delete(catalog, "p", before.etag)))[:2] == ("ABORTED", "STALE_ETAG")
    assert [type(event) for event in await catalog.published()] == [ProductCreated, ProductUpdated]


async def test_updates_without_an_etag_all_count(catalog: Catalog) -> None:
    await create(catalog, product("p", "a"))
    fields = [Product(product_id="p", **{name: "x"}) for name in ("name", "description", "brand")]
    await asyncio.gather(*(update(catalog, change) for change in fields))
    after = await get(catalog, "p")
    assert (after.name, after.description, after.brand, after.version) == ("x", "x", "x", 4)
    events = await catalog.published()
    assert [event.product.version for event in events if isinstance(event, ProductUpdated)] == [2, 3, 4]


async def test_pages_batches_and_streams(catalog: Catalog) -> None:
    rows = [(n, product(f"p{n:03}", f"s{n}", brand="Acme" if n % 3 else "Other")) for n in range(120)]
    await send(catalog, rows)
    await delete(catalog, "p007")
    alive = [f"p{n:03}" for n in range(120) if n != 7]

    async def listed(**request: object) -> list[list[str]]:
        pages, token = [], ""
        while True:
            page = await catalog.stub.ListProducts(
                messages.ListProductsRequest(page_token=token, **request),  # type: ignore[arg-type]
                timeout=LIMIT,
            )
            pages.append([p.product_id for p in page.products])
            if not (token := page.next_page_token):
                return pages

    pages = await listed(page_size=50)
    assert [len(page) for page in pages] == [50, 50, 19]
    assert [*chain(*pages)] == alive
    assert [*chain(*await listed(page_size=20, filter=messages.ProductFilter(brand="Other")))] == [
        f"p{n:03}" for n in range(0, 120, 3)
    ]
    first = await catalog.stub.ListProducts(messages.ListProductsRequest(page_size=1), timeout=LIMIT)
    other = messages.ListProductsRequest(page_token=first.next_page_token, filter=messages.ProductFilter(brand="Acme"))
    assert (await refusal(catalog.stub.ListProducts(other, timeout=LIMIT)))[2] == {"page_token"}

    skus = messages.BatchGetVariantsRequest(skus=["s9", "none", "s7", "s1"])
    sold = await catalog.stub.BatchGetVariants(skus, timeout=LIMIT)
    assert [(v.product_id, v.variant.sku, v.product_name) for v in sold.variants] == [
        ("p009", "s9", "Mug"),
        ("p001", "s1", "Mug"),
    ]
    ids = messages.BatchGetProductsRequest(product_ids=["p050", "p007", "p002"])
    found = await catalog.stub.BatchGetProducts(ids, timeout=LIMIT)
    assert [p.product_id for p in found.products] == ["p050", "p002"]

    async def streamed(*, include_deleted: bool) -> dict[str, messages.ProductState]:
        call = catalog.stub.StreamProducts(messages.StreamProductsRequest(include_deleted=include_deleted))
        return {state.product.product_id: state async for answer in call for state in answer.states}

    assert sorted(await streamed(include_deleted=False)) == alive
    remains = (await streamed(include_deleted=True))["p007"]
    assert remains == messages.ProductState(product=Product(product_id="p007", version=2), deleted=True)


async def test_a_token_that_the_catalog_never_made_is_refused(catalog: Catalog) -> None:
    async def begun(token: str) -> None:
        async for _ in catalog.stub.StreamProducts(messages.StreamProductsRequest(resume_token=token)):
            return

    await send(catalog, [(1, product("p"))])
    question = fingerprint(messages.ListProductsRequest())
    bodies = ('{"after": "\\ud800", "at": 1}', "[1]", '{"after": 7, "at": "x"}', '{"after": "p", "at": 1e300}', "{}")
    for body, key in product_of(bodies, ("", TOKEN_KEY)):
        forged = sign(body.encode(), key=key, purpose=question)
        request = messages.ListProductsRequest(page_token=forged)
        assert (await refusal(catalog.stub.ListProducts(request, timeout=LIMIT)))[2] == {"page_token"}
    for body, key in product_of(bodies[:3], ("", TOKEN_KEY)):
        assert (await refusal(begun(sign(body.encode(), key=key, purpose="stream False"))))[2] == {"resume_token"}


async def test_large_products_make_shorter_pages_and_are_refused_in_large_batches(catalog: Catalog) -> None:
    ids = [f"p{n:02}" for n in range(24)]
    large = [product(product_id) for product_id in ids]
    for given in large:
        for n in range(60):
            given.attributes[f"fact {n}"].text = "x" * 4_000
    await send(catalog, list(enumerate(large)))
    page = await catalog.stub.ListProducts(messages.ListProductsRequest(page_size=500), timeout=LIMIT)
    assert 1 < len(page.products) < len(ids)
    rest = messages.ListProductsRequest(page_size=500, page_token=page.next_page_token)
    following = await catalog.stub.ListProducts(rest, timeout=LIMIT)
    assert [p.product_id for p in (*page.products, *following.products)] == ids
    batch = messages.BatchGetProductsRequest(product_ids=ids)
    refused = await refusal(catalog.stub.BatchGetProducts(batch, timeout=LIMIT))
    assert refused[:2] == ("RESOURCE_EXHAUSTED", "ANSWER_TOO_LARGE")
    call = catalog.stub.StreamProducts(messages.StreamProductsRequest())
    assert sum([len(answer.states) async for answer in call]) == len(ids)


async def test_an_import_answers_every_row_and_stops_for_none(catalog: Catalog) -> None:
    await create(catalog, product("old", "o"))
    rows = [(n, product(f"p{n}")) for n in range(250)]
    rows[100] = (100, Product(product_id="bad"))
    rows[101] = (101, product("thief", "o", "p1"))
    rows[102] = (102, product("", "first", "second"))
    rows[103] = (103, product("old", "o", name="Renamed"))
    rows[104] = (104, product("old", "o", name="Renamed"))
    results = await send(catalog, rows)
    assert sorted(results) == list(range(250))
    outcome = {n: messages.ImportOutcome.Name(r.outcome).rpartition("_")[2] for n, r in results.items()}
    assert {n for n in outcome if outcome[n] == "REJECTED"} == {100, 101}
    assert [v.field for v in results[100].violations] == ["name", "variants"]
    assert {(v.field, v.description) for v in results[101].violations} == {
        ("variants[0].sku", "'o' belongs to product 'old'"),
        ("variants[1].sku", "'p1' belongs to product 'p1'"),
    }
    assert (results[102].product_id, outcome[102]) == ("first", "CREATED")
    assert (outcome[103], outcome[104]) == ("UPDATED", "UNCHANGED")
    assert all(outcome[n] == "CREATED" for n in range(250) if not 100 <= n <= 104)

    seen = [(e.product.product_id, e.product.version) for e in await catalog.published()]  # type: ignore[attr-defined]
    assert len(seen) == len(set(seen)) == 247 + 1
    again = await send(catalog, [rows[1], rows[249], (250, product("p2", name="Changed"))])
    assert [again[n].outcome for n in (1, 249, 250)] == [
        messages.IMPORT_OUTCOME_UNCHANGED,
        messages.IMPORT_OUTCOME_UNCHANGED,
        messages.IMPORT_OUTCOME_UPDATED,
    ]


async def test_a_client_that_stops_in_the_middle_leaves_what_was_answered(catalog: Catalog) -> None:
    answered: set[str] = set()
    call = catalog.stub.ImportProducts(timeout=30)
    for n in range(20):
        await call.write(messages.ImportProductsRequest(row=n, product=product(f"p{n}")))
    while len(answered) < 20:
        answered |= {result.product_id for result in (await call.read()).results}  # type: ignore[union-attr]
    await call.write(messages.ImportProductsRequest(row=20, product=product("late")))
    call.cancel()
    found = await catalog.store.get(sorted(answered))
    assert set(found) == answered
    assert len(await catalog.published()) >= 20
    assert (await get(catalog, "p1")).version == 1


@pytest.mark.parametrize("broker", ["remembers", "forgot"])
async def test_a_relay_killed_before_it_cleared_publishes_again_under_the_same_id(
    start_catalog: Callable[..., Awaitable[Catalog]], config: CatalogConfig, fresh_nats: Nats, broker: str
) -> None:
    mongo = Mongo(config.mongodb_url)
    store = MongoProducts(mongo)
    await store.migrate()
    details = Details(name="Mug", variants=(Variant("a", Price("GBP", 100)),))
    await create_product(
        New("p", details), products=store, taxonomy=MongoTaxonomy(mongo), clock=SystemClock(), new_id=uuid7
    )
    (entry,) = await store.outbox.pending(10)
    # Published, but never removed: here a relay dies.
    assert (await Publisher(fresh_nats).attempt([entry])).acked == {entry.id}
    if broker == "forgot":
        await fresh_nats.js.delete_stream(STREAM)
        await ensure_topology(fresh_nats)
    await mongo.close()
    catalog = await start_catalog()
    assert len(await catalog.published()) == 1
    assert [event.id for event in await events(fresh_nats)] == [entry.id]


async def test_it_serves_once_its_indexes_are_there(
    start_catalog: Callable[..., Awaitable[Catalog]], config: CatalogConfig
) -> None:
    catalog = await start_catalog(migrated=False)
    async with grpc.aio.insecure_channel(catalog.service.address) as channel:
        health = HealthStub(channel)
        request = HealthCheckRequest(service="polymart.catalog.v1.CatalogService")
        with pytest.raises(TimeoutError):
            await catalog.service.ready(0.3)
        await migrate(config)
        await catalog.service.ready()
        assert (await health.Check(request)).status == HealthCheckResponse.SERVING
