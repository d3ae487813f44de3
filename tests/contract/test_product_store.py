"""What every store of products does, on each engine that is there and with both drivers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polymart.catalog.v1 import events_pb2

from catalog_svc.adapters.memory import MemoryProducts
from catalog_svc.adapters.mongo import MAX_UNSENT, Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.application.ports import MAX_REVISIONS, Filter, Order, Position, Requested, Saved
from catalog_svc.domain.product import (
    Details,
    Kind,
    Product,
    ProductCreated,
    ProductDeleted,
    Request,
    Revision,
    Status,
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
from tests.conftest import free_port
from tests.contract.recorder import Recorder
from tests.unit.catalog import strategies as some

Store = MemoryProducts | MongoProducts

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
async def store(mongo_or_memory: Mongo | None) -> Store:
    if mongo_or_memory is None:
        return MemoryProducts()
    products = MongoProducts(mongo_or_memory)
    await products.migrate()
    return products


@pytest.fixture
async def mongo(empty_mongo: Mongo) -> MongoProducts:
    products = MongoProducts(empty_mongo)
    await products.migrate()
    return products


def details(*skus: str, name: str = "Mug", brand: str = "") -> Details:
    return Details(name=name, brand=brand, variants=tuple(Variant(sku, Money("GBP", 10**15)) for sku in skus))


def new(product_id: str, *skus: str, brand: str = "", before: Tombstone | None = None) -> ProductCreated:
    return create(before, product_id, details(*skus, brand=brand), etag=uuid7(), now=NOON)


def gone(product: Product) -> ProductDeleted:
    return delete(product, now=NOON)


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
        assert await store.save([gone(await stored(store, product_id))]) == [Saved.SAVED]
    assert await store.get(["p", "q"]) == {"p": Tombstone("p", 2), "q": Tombstone("q", 2)}
    assert await store.holders(["a", "b", "c"]) == {}
    assert await store.save([new("r", "a", "b")]) == [Saved.SAVED]


async def test_versions_go_on_when_a_deleted_product_is_created_again(store: Store) -> None:
    await store.save([new("p", "a")])
    await store.save([gone(await stored(store, "p"))])
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
    deleted = gone(updated.product)
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
    await store.save([gone(kept[0])])
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


async def page(store: Store, which: Filter, order: Order = Order.BY_ID, after: str = "", limit: int = 99) -> list[str]:
    position = None
    if after:
        position = Position(after, (await stored(store, after)).update_time)
    return [product.product_id for product in await store.page(which, order, position, limit)]


async def test_pages_are_ordered_by_id_and_leave_out_what_is_deleted(store: Store) -> None:
    ids = ["Z", "a", "b", "ä", "日本", "9"]
    await store.save([new(product_id, product_id, brand="Acme" if product_id in "ab" else "") for product_id in ids])
    await store.save([gone(await stored(store, "b"))])
    everything, acme = Filter(), Filter(brand="Acme")
    assert await page(store, everything, limit=3) == ["9", "Z", "a"]
    assert await page(store, everything, after="a", limit=3) == ["ä", "日本"]
    assert await page(store, acme) == ["a"]
    assert await page(store, acme, after="a") == []
    assert await page(store, Filter(brand="Nobody")) == []


@pytest.mark.parametrize("order", Order)
async def test_pages_pass_every_filter_in_every_order(store: Store, order: Order) -> None:
    """Twelve moments of two products each, so that ids break ties."""
    model: dict[str, Product] = {}
    for n in range(24):
        given_ = replace(
            details(f"s{n}", brand=f"b{n % 2}"),
            category_id=f"c{n % 3}",
            product_type_id=f"t{n % 4}",
            status=list(Status)[n % 3],
        )
        at = NOON + timedelta(minutes=n // 2 * 7 % 12)
        event = create(None, f"p{n:02}", given_, etag="e", now=at)
        model[f"p{n:02}"] = event.product
        await store.save([event])
    since = NOON + timedelta(minutes=5)
    filters = [
        Filter(), Filter(brand="b1"), Filter(category_ids=["c0", "c2"]), Filter(product_type_id="t3"),
        Filter(status=Status.DRAFT), Filter(updated_since=since),
        Filter(["c1", "none"], "t1", "b1", Status.ACTIVE, since), Filter(category_ids=["none"]),
        Filter(category_ids=["c2", *(f"x{n}" for n in range(150)), "c0", *(f"y{n}" for n in range(150)), "c1"]),
        Filter(["c2", *(f"x{n}" for n in range(220)), "c1"], updated_since=since),
    ]  # fmt: skip

    def passes(product: Product, which: Filter) -> bool:
        d = product.details
        return (
            (not which.category_ids or d.category_id in which.category_ids)
            and which.product_type_id in ("", d.product_type_id)
            and which.brand in ("", d.brand)
            and which.status in (None, d.status)
            and (not which.updated_since or product.update_time >= which.updated_since)
        )

    for which in filters:
        expected = sorted(key for key, product in model.items() if passes(product, which))
        if order is not Order.BY_ID:
            expected.sort(key=lambda key: (model[key].update_time, key), reverse=order is Order.LATEST_CHANGE_FIRST)
        seen: list[str] = []
        while found := await page(store, which, order, seen[-1] if seen else "", 5):
            seen += found
        assert seen == expected, which


async def test_pages_stay_right_while_products_come_and_go(store: Store) -> None:
    await store.save([new(f"p{n}", f"s{n}") for n in range(8)])
    seen = await page(store, Filter(), limit=3)
    await store.save(
        [new("p11", "s11"), new("p55", "s55"), gone(await stored(store, "p4")), gone(await stored(store, "p1"))]
    )
    seen += await page(store, Filter(), after="p2")
    assert seen == ["p0", "p1", "p2", "p3", "p5", "p55", "p6", "p7"]


async def test_a_trial_shows_what_would_be_and_leaves_nothing_behind(store: Store) -> None:
    await store.save([new("p", "a", "b"), new("q", "c")])
    before, sent = await store.get(["p", "q"]), len(await store.outbox.pending(100))
    many = [new(f"n{n}", f"s{n}") for n in range(150)]
    async with store.trial() as trial, store.trial() as other:
        assert await trial.get(["p", "x"]) == {"p": before["p"]}
        changed = revise(await stored(store, "p"), details("b", "d"), etag="e", now=NOON)
        outcomes = await trial.save([changed, new("r", "a"), *many])
        assert outcomes == [Saved.SAVED] * 152
        assert await trial.holders(["a", "b", "c", "d"]) == {"a": "r", "b": "p", "c": "q", "d": "p"}
        assert len(await trial.get([event.product.product_id for event in many])) == 150
        assert len(await trial.holders([f"s{n}" for n in range(150)])) == 150
        again = revise(changed.product, details("b", name="Cup"), etag="f", now=NOON)
        assert await trial.save([again]) == [Saved.SAVED]
        assert await trial.get(["p", "q"]) == {"p": again.product, "q": before["q"]}
        assert await other.holders(["a", "b", "c", "d"]) == {"a": "p", "b": "p", "c": "q"}
    assert await store.get(["p", "q", "r", "n0"]) == before
    assert len(await store.outbox.pending(100)) == sent
    if isinstance(store, MongoProducts):
        assert await store._trials.find({}).to_list(None) == []


CHANGES = st.lists(st.tuples(st.sampled_from(["add", "edit", "remove"]), st.integers(0, 9)), max_size=4)


@pytest.mark.parametrize("order", Order)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=10), st.lists(CHANGES, max_size=8), st.integers(1, 3))
async def test_pages_show_what_nobody_touches_once_whatever_others_do_between_them(
    store: Store, order: Order, minutes: list[int], between: list[list[tuple[str, int]]], size: int
) -> None:
    """The products of each example are of a brand of their own."""
    brand = uuid7()

    async def add(n: int, at: datetime) -> None:
        # Ids of all places among the others.
        product_id = f"{n * 7 % 10}-{uuid7()}"
        event = create(None, product_id, details(product_id, brand=brand), etag="e", now=at)
        assert await store.save([event]) == [Saved.SAVED]
        alive.append(event.product)

    alive: list[Product] = []
    for n, minute in enumerate(minutes):
        await add(n, NOON + timedelta(minutes=minute))
    untouched = {product.product_id for product in alive}
    seen: list[Product] = []
    now = NOON + timedelta(minutes=2)
    for changes in [*between, *[[]] * 20]:
        found = await store.page(Filter(brand=brand), order, _position(seen), size)
        if not found:
            break
        seen += found
        for what, n in changes:
            now += timedelta(minutes=1)
            if what == "add":
                await add(n, now)
            elif alive:
                product = alive.pop(n % len(alive))
                untouched.discard(product.product_id)
                event = revise(product, replace(product.details, name=f"{now}"), etag="e", now=now)
                saved = await store.save([event if what == "edit" else delete(product, now=now)])
                assert saved == [Saved.SAVED]
                if what == "edit":
                    alive.append(event.product)
    shown = [product.product_id for product in seen]
    assert {product_id: shown.count(product_id) for product_id in untouched} == dict.fromkeys(untouched, 1)
    keys = [
        product.product_id if order is Order.BY_ID else (product.update_time, product.product_id) for product in seen
    ]
    assert keys == sorted(keys, reverse=order is Order.LATEST_CHANGE_FIRST)  # type: ignore[type-var]


def _position(seen: Sequence[Product]) -> Position | None:
    return Position(seen[-1].product_id, seen[-1].update_time) if seen else None


async def test_a_request_is_known_by_its_id_once(store: Store) -> None:
    first = create(None, "p", details("a"), etag="e", now=NOON, request=Request("r1", "hash"))
    assert await store.requested("r1") is None
    assert await store.save([first]) == [Saved.SAVED]
    assert await store.requested("r1") == Requested("p", "hash")
    again = create(None, "q", details("b"), etag="e", now=NOON, request=Request("r1", "hash"))
    assert await store.save([again]) == [Saved.STALE]
    await store.save([gone(await stored(store, "p"))])
    assert await store.requested("r1") == Requested("p", "hash")
    other = create(Tombstone("p", 2), "p", details("a"), etag="e", now=NOON, request=Request("r2", "other"))
    assert await store.save([other]) == [Saved.SAVED]
    assert await store.requested("r1") is None
    await store.save([gone(await stored(store, "p"))])
    assert await store.save([new("p", "a", before=Tombstone("p", 4))]) == [Saved.SAVED]
    assert await store.requested("r2") is None


async def test_the_last_changes_are_kept_and_older_ones_forgotten(store: Store) -> None:
    assert await store.revisions("p") is None
    event = create(None, "p", details("a"), etag="e", now=NOON, by="ann")
    await store.save([event])
    product = event.product
    for n in range(MAX_REVISIONS + 3):
        changed = revise(product, details("a", name=f"Mug {n}"), etag="e", now=NOON, by=f"bob {n}")
        assert await store.save([changed]) == [Saved.SAVED]
        await store.outbox.remove(await store.outbox.pending(10))
        product = changed.product
    await store.save([delete(product, now=NOON, by="eve")])
    known = await store.revisions("p")
    assert known is not None
    assert len(known) == MAX_REVISIONS
    assert known[0] == Revision(product.version + 1, NOON, "eve", Kind.DELETED)
    assert known[1] == Revision(product.version, NOON, f"bob {MAX_REVISIONS + 2}", Kind.UPDATED, ("name",))
    assert [r.version for r in known] == list(range(product.version + 1, product.version + 1 - MAX_REVISIONS, -1))


async def test_a_stream_has_every_product_and_tombstones_on_request(store: Store) -> None:
    await store.save([new(f"p{n}", f"s{n}") for n in range(250)])
    await store.save([gone(await stored(store, "p7"))])

    async def streamed(*, include_deleted: bool) -> list[object]:
        return [state async for batch in store.stream(include_deleted=include_deleted) for state in batch]

    ids = [state.product_id for state in await streamed(include_deleted=True)]  # type: ignore[attr-defined]
    assert ids == sorted(f"p{n}" for n in range(250))
    rest = [s.product_id async for batch in store.stream(include_deleted=True, after="p98") for s in batch]
    assert rest == ["p99"]
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


async def test_a_stream_holds_no_cursor_while_its_reader_rests(mongo: MongoProducts, recorder: Recorder) -> None:
    await mongo.save([new(f"p{n:03}", f"s{n}") for n in range(450)])
    sizes = [len(batch) async for batch in mongo.stream()]
    assert sizes == [200, 200, 50]
    finds = [c for _, c in recorder.commands if c.get("find") == "products"]
    assert [c["limit"] for c in finds] == [200] * 3


async def test_a_store_that_cannot_be_reached_is_unavailable() -> None:
    url = f"mongodb://127.0.0.1:{free_port()}/?directConnection=true"
    clients = Mongo(url, "motor"), Mongo(url, "pymongo")
    stores = [(client, MongoProducts(client)) for client in clients]
    calls = [call for c, s in stores for call in (c.ready(), s.get(["p"]), s.save([new("p", "a")]))]
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, Unavailable)
    for client in clients:
        await client.close()
