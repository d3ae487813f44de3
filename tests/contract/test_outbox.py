"""What every outbox does, whatever its store."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from polymart.catalog.v1.events_pb2 import ProductUpdated
from polymart.catalog.v1.product_pb2 import Product
from pymongo import AsyncMongoClient

from chassis.ids import uuid7
from chassis.inbox.memory import MemoryTransaction
from chassis.messaging.envelope import Envelope
from chassis.outbox.joined import JoinedOutbox
from chassis.outbox.memory import MemoryOutbox
from chassis.outbox.mongo import Document, DocumentCollection, MongoOutbox
from chassis.outbox.port import PAGE_BYTES, Outbox
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, migrate
from tests.conftest import Engine, until

SECOND = timedelta(seconds=1)


class Store(Protocol):
    """A store with its outbox, and its way to write messages along with a change of one aggregate."""

    outbox: Outbox

    async def write(self, aggregate_id: str, envelopes: Sequence[Envelope]) -> None: ...
    async def empty(self) -> None: ...


class MemoryStore:
    def __init__(self) -> None:
        self.outbox = MemoryOutbox()

    async def write(self, aggregate_id: str, envelopes: Sequence[Envelope]) -> None:
        tx = MemoryTransaction()
        await self.outbox.add(tx, envelopes)
        tx.commit()

    async def empty(self) -> None:
        self.outbox = MemoryOutbox()


class JoinedStore:
    """Two outboxes as one; aggregates keep to one of them."""

    def __init__(self) -> None:
        self._stores = MemoryStore(), MemoryStore()
        self.outbox = JoinedOutbox(*(store.outbox for store in self._stores))

    async def write(self, aggregate_id: str, envelopes: Sequence[Envelope]) -> None:
        await self._stores[sum(aggregate_id.encode()) % 2].write(aggregate_id, envelopes)

    async def empty(self) -> None:
        JoinedStore.__init__(self)


class PostgresStore:
    def __init__(self, db: Postgres):
        self.db = db
        self.outbox = PostgresOutbox(db)

    async def write(self, aggregate_id: str, envelopes: Sequence[Envelope]) -> None:
        async with self.db.transaction() as tx:
            await self.outbox.add(tx, envelopes)

    async def empty(self) -> None:
        await self.db.execute("DELETE FROM outbox")
        await self.db.execute("UPDATE relay_lease SET expires_at = '-infinity'")


class MongoStore:
    def __init__(self, collection: DocumentCollection):
        self.collection = collection
        self.outbox = MongoOutbox(collection)

    async def write(self, aggregate_id: str, envelopes: Sequence[Envelope]) -> None:
        await self.collection.update_one(
            {"_id": aggregate_id},
            {
                "$set": {"pending": True, "etag": "e"},
                "$push": {"outbox": {"$each": self.outbox.embed(envelopes)}},
                "$inc": {"version": 1},
            },
            upsert=True,
        )
        self.outbox.nudge()

    async def empty(self) -> None:
        await self.collection.delete_many({})
        await self.collection.database["leases"].delete_many({})


@asynccontextmanager
async def postgres_store(make_database: Callable[[], Awaitable[str]]) -> AsyncIterator[PostgresStore]:
    url = await make_database()
    await migrate(url, "chassis")
    db = Postgres(url)
    await db.open()
    yield PostgresStore(db)
    await db.close()


@asynccontextmanager
async def mongo_store(
    driver: type[AsyncIOMotorClient[Document]] | type[AsyncMongoClient[Document]], url: str
) -> AsyncIterator[MongoStore]:
    client = driver(url)
    name = f"outbox_{uuid7()}"
    store = MongoStore(client[name]["products"])
    await store.outbox.ensure_index()
    yield store
    await client.drop_database(name)
    closing = client.close()
    if closing is not None:
        await closing


@pytest.fixture(scope="module", params=["memory", "joined", "postgres", "motor", "pymongo"])
def kind(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Store]:
    if request.param == "memory":
        return nullcontext(MemoryStore())
    if request.param == "joined":
        return nullcontext(JoinedStore())
    if request.param == "postgres":
        return postgres_store(request.getfixturevalue("fresh_database"))
    driver = AsyncIOMotorClient if request.param == "motor" else AsyncMongoClient
    return mongo_store(driver, request.getfixturevalue("mongodb").url)


@pytest.fixture(scope="module")
async def opened(kind: AbstractAsyncContextManager[Store]) -> AsyncIterator[Store]:
    async with kind as store:
        yield store


@pytest.fixture
async def store(opened: Store) -> Store:
    await opened.empty()
    return opened


def messages(aggregate_id: str, count: int) -> list[Envelope]:
    return [Envelope.new(ProductUpdated(), aggregate_id=aggregate_id, source="catalog_svc") for _ in range(count)]


def ids(entries: Sequence[object]) -> list[str]:
    return [entry.id for entry in entries]  # type: ignore[attr-defined]


async def test_gives_back_what_was_added(store: Store) -> None:
    (sent,) = messages("p=1 é", 1)
    await store.write("p=1 é", [sent])
    (entry,) = await store.outbox.pending(10)
    assert Envelope.decode(entry.subject, entry.headers, entry.data) == sent
    assert (entry.id, entry.aggregate_id, entry.subject) == (sent.id, sent.aggregate_id, sent.subject)


async def test_keeps_the_order_of_each_aggregate(store: Store) -> None:
    one, two = messages("one", 6), messages("two", 6)
    for position in range(0, 6, 2):
        await store.write("one", one[position : position + 2])
        await store.write("two", two[position : position + 2])
    entries = await store.outbox.pending(100)
    assert ids([e for e in entries if e.aggregate_id == "one"]) == ids(one)
    assert ids([e for e in entries if e.aggregate_id == "two"]) == ids(two)


async def test_a_page_holds_the_first_of_each_aggregate_it_shows(store: Store) -> None:
    for name in "abcdefgh":
        await store.write(name, messages(name, 1))
    await store.write("a", messages("a", 1))
    page = await store.outbox.pending(3)
    assert 3 <= len(page) <= 4
    everything = await store.outbox.pending(100)
    for entry in page:
        firsts = [e.id for e in everything if e.aggregate_id == entry.aggregate_id]
        assert firsts[0] in ids(page)


async def test_a_page_of_large_messages_is_short(store: Store) -> None:
    large = "x" * 1024 * 1024
    names = [f"p{n:02}" for n in range(12)]
    for name in names:
        event = ProductUpdated(product=Product(product_id=name, name=large))
        await store.write(name, [Envelope.new(event, aggregate_id=name, source="catalog_svc")])
    seen: list[str] = []
    while page := await store.outbox.pending(100):
        assert sum(len(entry.data) for entry in page) < PAGE_BYTES + 2 * len(large)
        seen += [entry.aggregate_id for entry in page]
        await store.outbox.remove(page)
    assert sorted(seen) == names


async def test_skips_aggregates_that_are_to_be_left_alone(store: Store) -> None:
    for name in ("one", "two"):
        await store.write(name, messages(name, 2))
    assert {e.aggregate_id for e in await store.outbox.pending(10, skip=["one"])} == {"two"}


async def test_removes_exactly_what_it_is_told(store: Store) -> None:
    sent = messages("one", 3)
    await store.write("one", sent)
    entries = await store.outbox.pending(10)
    await store.outbox.remove(entries[:2])
    assert ids(await store.outbox.pending(10)) == [sent[2].id]
    await store.outbox.remove(entries[:2])
    assert ids(await store.outbox.pending(10)) == [sent[2].id]


async def test_what_is_added_while_others_are_published_stays(store: Store) -> None:
    await store.write("one", messages("one", 2))
    await store.write("two", messages("two", 1))
    entries = await store.outbox.pending(10)
    (late,) = messages("one", 1)
    await store.write("one", [late])
    await store.outbox.remove(entries)
    assert ids(await store.outbox.pending(10)) == [late.id]
    await store.outbox.remove(await store.outbox.pending(10))
    assert await store.outbox.pending(10) == []


async def test_writers_and_a_relay_at_once_lose_nothing_and_repeat_nothing(store: Store) -> None:
    sent = {name: messages(name, 8) for name in ("one", "two", "three")}
    published: list[str] = []

    async def write(name: str) -> None:
        for message in sent[name]:
            await store.write(name, [message])

    async def relay() -> None:
        while len(published) < 24:
            entries = await store.outbox.pending(10)
            published.extend(ids(entries))
            await store.outbox.remove(entries)
            await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(relay(), *(write(name) for name in sent))
    for name, expected in sent.items():
        assert [id for id in published if id in ids(expected)] == ids(expected), name
    assert await store.outbox.pending(10) == []


async def test_one_holder_at_a_time_has_the_lease(store: Store) -> None:
    assert await store.outbox.lease("a", 30 * SECOND)
    assert await store.outbox.lease("a", 30 * SECOND)
    assert not await store.outbox.lease("b", 30 * SECOND)
    await store.outbox.release("b")
    assert not await store.outbox.lease("b", 30 * SECOND)
    await store.outbox.release("a")
    assert await store.outbox.lease("b", 30 * SECOND)
    assert not await store.outbox.lease("a", 30 * SECOND)


async def test_a_lease_that_ran_out_is_free(store: Store) -> None:
    assert await store.outbox.lease("a", 0.05 * SECOND)
    await until(lambda: store.outbox.lease("b", 30 * SECOND))
    assert not await store.outbox.lease("a", 30 * SECOND)


async def test_clocks_that_differ_dont_share_a_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the store's clock that counts."""
    assert await store.outbox.lease("a", 30 * SECOND)
    monkeypatch.setattr(time, "time", lambda: datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    assert not await store.outbox.lease("b", 30 * SECOND)
    assert await store.outbox.lease("a", 30 * SECOND)


async def test_many_at_once_want_the_lease(store: Store) -> None:
    taken = await asyncio.gather(*(store.outbox.lease(f"holder {n}", 30 * SECOND) for n in range(8)))
    assert taken.count(True) == 1


async def test_measures_its_backlog(store: Store) -> None:
    assert (await store.outbox.backlog()).entries == 0
    assert (await store.outbox.backlog()).oldest_seconds == 0
    await store.write("one", messages("one", 2))

    async def aged() -> bool:
        return (await store.outbox.backlog()).oldest_seconds >= 0.05

    await until(aged)
    await store.write("two", messages("two", 1))
    backlog = await store.outbox.backlog()
    assert backlog.entries == 3
    assert backlog.oldest_seconds >= 0.05


async def test_nudges_after_a_write(store: Store) -> None:
    nudged = asyncio.Event()
    store.outbox.on_added(nudged.set)
    await store.write("one", messages("one", 1))
    async with asyncio.timeout(5):
        await nudged.wait()


async def test_a_transaction_that_is_rolled_back_adds_nothing(database: str) -> None:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    outbox = PostgresOutbox(db)
    nudged = asyncio.Event()
    outbox.on_added(nudged.set)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with db.transaction() as tx:
            await outbox.add(tx, messages("one", 1))
            raise ZeroDivisionError
    assert await outbox.pending(10) == []
    assert not nudged.is_set()
    await db.close()


async def test_a_document_keeps_its_version_and_etag(mongodb: Engine) -> None:
    async with mongo_store(AsyncIOMotorClient, mongodb.url) as store:
        await store.write("one", messages("one", 2))
        await store.outbox.remove(await store.outbox.pending(10))
        document = await store.collection.find_one({"_id": "one"})
        assert document == {"_id": "one", "etag": "e", "version": 1, "outbox": []}
