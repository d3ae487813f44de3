"""What every store of products does, and with which driver."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from polymart.catalog.v1 import events_pb2

from catalog_svc.adapters.memory_products import MemoryProducts
from catalog_svc.adapters.mongo_products import MAX_UNSENT, MongoProducts
from catalog_svc.application.ports import Saved
from catalog_svc.domain.product import (
    Details,
    Product,
    ProductCreated,
    Tombstone,
    Variant,
    create,
    delete,
    revise,
)
from catalog_svc.protos import event_message
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from chassis.money import Money
from tests.conftest import Engine, free_port
from tests.unit.catalog import strategies as some

Store = MemoryProducts | MongoProducts

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def database_url(engine: Engine) -> str:
    return urlsplit(engine.url)._replace(path=f"/test_{token_hex(6)}").geturl()


@pytest.fixture(params=["memory", "motor", "pymongo"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A kind of store, and the URL of an empty database for it."""
    kind: str = request.param
    return kind, "" if kind == "memory" else database_url(request.getfixturevalue("mongodb"))


@pytest.fixture
async def store(place: tuple[str, str]) -> AsyncIterator[Store]:
    kind, url = place
    if kind == "memory":
        yield MemoryProducts()
        return
    products = MongoProducts(url, "motor" if kind == "motor" else "pymongo")
    await products.migrate()
    yield products
    await products.close()


@pytest.fixture
async def mongo(mongodb: Engine) -> AsyncIterator[MongoProducts]:
    products = MongoProducts(database_url(mongodb))
    await products.migrate()
    yield products
    await products.close()


def details(*skus: str, name: str = "Mug", brand: str = "") -> Details:
    return Details(name=name, brand=brand, variants=tuple(Variant(sku, Money("GBP", 10**15)) for sku in skus))


def new(product_id: str, *skus: str, brand: str = "", before: Tombstone | None = None) -> ProductCreated:
    return create(before, product_id, details(*skus, brand=brand), etag=uuid7(), now=NOON)


async def stored(store: Store, product_id: str) -> Product:
    product = (await store.get([product_id]))[product_id]
    assert isinstance(product, Product)
    return product


async def unsent(store: Store) -> list[tuple[str, object]]:
    """What waits to be published: the aggregate and the message of each entry."""
    return [
        (e.aggregate_id, Envelope.decode(e.subject, e.headers, e.data).payload)
        for e in await store.outbox.pending(10_000)
    ]


async def test_a_product_is_read_as_it_was_stored(store: Store) -> None:
    event = new("p", "a", "b")
    assert await store.save([event]) == [Saved.SAVED]
    assert await store.get(["p", "q"]) == {"p": event.product}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.details(sku=some.words))
async def test_whatever_may_be_said_of_a_product_is_kept(store: Store, given_: Details) -> None:
    product_id = uuid7()
    given_ = replace(given_, variants=tuple(replace(v, sku=f"{uuid7()} {v.sku}") for v in given_.variants))
    await store.save([create(None, product_id, given_, etag="e", now=NOON)])
    assert (await stored(store, product_id)).details == given_


async def test_skus_are_unique_between_products(store: Store) -> None:
    await store.save([new("p", "a", "b")])
    assert await store.save([new("q", "c", "b"), new("r", "d")]) == [Saved.SKU_TAKEN, Saved.SAVED]
    assert set(await store.get(["p", "q", "r"])) == {"p", "r"}
    other = await stored(store, "r")
    assert await store.save([revise(other, details("a"), etag="e", now=NOON)]) == [Saved.SKU_TAKEN]
    assert await stored(store, "r") == other


async def test_a_product_keeps_gives_up_and_adds_skus(store: Store) -> None:
    await store.save([new("p", "a", "b")])
    change = revise(await stored(store, "p"), details("b", "c"), etag="e", now=NOON)
    assert await store.save([change]) == [Saved.SAVED]
    assert await store.holders(["a", "b", "c"]) == {"b": "p", "c": "p"}
    assert await store.save([new("q", "a")]) == [Saved.SAVED]


async def test_deletion_frees_the_skus_of_any_number_of_products(store: Store) -> None:
    await store.save([new("p", "a"), new("q", "b", "c")])
    for product_id in ("p", "q"):
        assert await store.save([delete(await stored(store, product_id))]) == [Saved.SAVED]
    assert await store.get(["p", "q"]) == {"p": Tombstone("p", 2), "q": Tombstone("q", 2)}
    assert await store.holders(["a", "b", "c"]) == {}
    assert await store.save([new("r", "a", "b")]) == [Saved.SAVED]


async def test_versions_go_on_when_a_deleted_product_is_created_again(store: Store) -> None:
    await store.save([new("p", "a")])
    await store.save([delete(await stored(store, "p"))])
    assert await store.save([new("p", "a")]) == [Saved.STALE]
    again = new("p", "b", before=Tombstone("p", 2))
    assert await store.save([again]) == [Saved.SAVED]
    assert await stored(store, "p") == again.product
    assert again.product.version == 3


async def test_of_two_writes_of_one_version_one_wins(store: Store) -> None:
    assert sorted(
        (await asyncio.gather(*(store.save([new("p", f"s{n}")]) for n in range(5)))),
        key=lambda saved: saved[0].name,
    ) == [[Saved.SAVED], *[[Saved.STALE]] * 4]
    before = await stored(store, "p")
    rivals = [revise(before, replace(before.details, name=f"Mug {n}"), etag=f"{n}", now=NOON) for n in range(5)]
    outcomes = await asyncio.gather(*(store.save([rival]) for rival in rivals))
    assert sum(outcome == [Saved.SAVED] for outcome in outcomes) == 1
    winner = next(rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome == [Saved.SAVED])
    assert await stored(store, "p") == winner.product


async def test_each_write_has_its_event_and_a_refused_one_none(store: Store) -> None:
    created, other = new("p", "a"), new("q", "b")
    updated = revise(created.product, details("a", name="Cup"), etag="e", now=NOON)
    deleted = delete(updated.product)
    for event in (created, updated, deleted):
        assert await store.save([event]) == [Saved.SAVED]
        assert (await store.save([event]))[0] is not Saved.SAVED
    await store.save([other])
    assert await store.save([new("r", "b")]) == [Saved.SKU_TAKEN]
    events = await unsent(store)
    assert [message for aggregate, message in events if aggregate == "p"] == [
        event_message(event) for event in (created, updated, deleted)
    ]
    assert {aggregate for aggregate, _ in events} == {"p", "q"}


async def test_many_products_are_saved_and_refused_one_by_one(store: Store) -> None:
    await store.save([new(f"old {n}", f"o{n}") for n in range(40)])
    kept = [await stored(store, f"old {n}") for n in range(40)]
    await store.save([delete(kept[0])])
    events = [revise(product, details(f"o{n}", name="Cup"), etag="e", now=NOON) for n, product in enumerate(kept)]
    fresh = [new(f"new {n}", "o1" if n == 7 else f"n{n}") for n in range(250)]
    outcomes = await store.save([*events, *fresh])
    refused = {position: outcome for position, outcome in enumerate(outcomes) if outcome is not Saved.SAVED}
    assert refused == {0: Saved.STALE, 47: Saved.SKU_TAKEN}
    found = await store.get([f"new {n}" for n in range(250)])
    assert len(found) == 249
    sold = await store.variants([f"n{n}" for n in range(250)])
    assert len(sold) == 249
    assert (sold["n9"].product_id, sold["n9"].product_version, sold["n9"].product_name) == ("new 9", 1, "Mug")
    assert sold["n9"].variant == Variant("n9", Money("GBP", 10**15))


async def test_pages_are_ordered_by_id_and_leave_out_what_is_deleted(store: Store) -> None:
    ids = ["Z", "a", "b", "ä", "日本", "9"]
    await store.save([new(product_id, product_id, brand="Acme" if product_id in "ab" else "") for product_id in ids])
    await store.save([delete(await stored(store, "b"))])

    async def page(after: str, limit: int, brand: str = "") -> list[str]:
        return [product.product_id for product in await store.page(after, limit, brand)]

    assert await page("", 3) == ["9", "Z", "a"]
    assert await page("a", 3) == ["ä", "日本"]
    assert await page("", 9, "Acme") == ["a"]
    assert await page("a", 9, "Acme") == []
    assert await page("", 9, "Nobody") == []


async def test_a_stream_has_every_product_and_tombstones_on_request(store: Store) -> None:
    await store.save([new(f"p{n}", f"s{n}") for n in range(250)])
    await store.save([delete(await stored(store, "p7"))])

    async def streamed(*, include_deleted: bool) -> list[object]:
        return [state async for batch in store.stream(include_deleted=include_deleted) for state in batch]

    products = await streamed(include_deleted=False)
    assert len(products) == 249
    assert all(isinstance(product, Product) for product in products)
    assert Tombstone("p7", 2) in await streamed(include_deleted=True)


async def test_pending_is_cleared_only_when_the_outbox_is_empty(mongo: MongoProducts) -> None:
    created = new("p", "a")
    await mongo.save([created])
    published = await mongo.outbox.pending(10)
    updated = revise(created.product, details("a", name="Cup"), etag="2", now=NOON)
    await mongo.save([updated])
    await mongo.outbox.remove(published)
    document = await mongo._products.find_one({"_id": "p"})
    assert document is not None
    assert (document["pending"], len(document["outbox"])) == (True, 1)
    assert [message for _, message in await unsent(mongo)] == [event_message(updated)]
    await mongo.outbox.remove(await mongo.outbox.pending(10))
    document = await mongo._products.find_one({"_id": "p"})
    assert document is not None
    assert not document.get("pending")
    assert document["outbox"] == []
    assert await stored(mongo, "p") == updated.product


async def test_a_document_holds_a_limited_number_of_unsent_messages(mongo: MongoProducts) -> None:
    product = new("p", "a").product
    await mongo.save([ProductCreated(product)])
    for n in range(MAX_UNSENT - 1):
        event = revise(product, details("a", name=f"Mug {n}"), etag="e", now=NOON)
        assert await mongo.save([event]) == [Saved.SAVED]
        product = event.product
    one_more = revise(product, details("a", name="One more"), etag="e", now=NOON)
    assert await mongo.save([one_more]) == [Saved.BACKED_UP]
    await mongo.outbox.remove(await mongo.outbox.pending(10))
    assert await mongo.save([one_more]) == [Saved.SAVED]
    assert len(await unsent(mongo)) == 1
    assert isinstance((await unsent(mongo))[0][1], events_pb2.ProductUpdated)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_the_schema_is_pending_until_its_indexes_are_made(mongodb: Engine, driver: str) -> None:
    products = MongoProducts(database_url(mongodb), driver)  # type: ignore[arg-type]
    with pytest.raises(Unavailable) as pending:
        await products.check_schema()
    assert pending.value.reason == "SCHEMA_PENDING"
    await asyncio.gather(products.migrate(), products.migrate())
    await products.check_schema()
    await products.ready()
    await products.close()


async def test_a_store_that_cannot_be_reached_is_unavailable() -> None:
    url = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    stores = MongoProducts(url, "motor"), MongoProducts(url, "pymongo")
    calls = [call for s in stores for call in (s.ready(), s.get(["p"]), s.save([new("p", "a")]))]
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, Unavailable)
    for store in stores:
        await store.close()
