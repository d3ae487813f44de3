import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from math import inf

import asyncpg
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from polymart.inventory.v1.commands_pb2 import ReserveStock
from polymart.order.v1.events_pb2 import OrderConfirmed, OrderRejected

from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.inbox.memory import MemoryInbox, MemoryTransaction
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.outbox.memory import MemoryOutbox
from chassis.outbox.mongo import MongoOutbox
from chassis.outbox.port import OutboxEntry
from chassis.outbox.postgres import PostgresOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, migrate
from tests.conftest import Engine, NatsServer, until
from tests.integration.messaging.support import (
    CONSUMER,
    Recorder,
    confirmed,
    entries,
    make_again,
    running,
    stored_ids,
)


@pytest.fixture
async def db(database: str) -> AsyncIterator[Postgres]:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    yield db
    await db.close()


async def add(db: Postgres, outbox: PostgresOutbox, envelopes: Sequence[Envelope]) -> None:
    async with db.transaction() as tx:
        await outbox.add(tx, envelopes)


def relay_of(outbox: PostgresOutbox | MongoOutbox | MemoryOutbox, nats: Nats, metrics: Recorder | None = None) -> Relay:
    return Relay(outbox, Publisher(nats), metrics or Recorder(), "test")


async def test_what_is_committed_is_published_and_then_forgotten(fresh_nats: Nats, db: Postgres) -> None:
    outbox = PostgresOutbox(db)
    sent = [confirmed(f"o-{n % 7}") for n in range(60)]
    async with running(relay_of(outbox, fresh_nats)):
        for start in range(0, 60, 10):
            await add(db, outbox, sent[start : start + 10])

        async def empty() -> bool:
            return (await outbox.backlog()).entries == 0

        await until(empty)
    assert sorted(await stored_ids(fresh_nats)) == sorted(envelope.id for envelope in sent)


async def test_a_relay_that_dies_before_the_removal_publishes_again(fresh_nats: Nats, db: Postgres) -> None:
    """And the consumer notices neither that nor the stream's being made again and filled with the same."""

    class Dying(PostgresOutbox):
        async def remove(self, published: Sequence[OutboxEntry]) -> None:
            raise asyncio.CancelledError

    sent = [confirmed(f"o-{n}") for n in range(12)]
    await add(db, PostgresOutbox(db), sent)
    with pytest.raises(asyncio.CancelledError):
        await relay_of(Dying(db), fresh_nats).run()
    assert len(await stored_ids(fresh_nats)) == 12
    await db.execute("UPDATE relay_lease SET expires_at = '-infinity'")

    handled: list[str] = []

    async def handle(messages: Sequence[Envelope], *, tx: MemoryTransaction) -> None:
        tx.after_commit(lambda: handled.extend(m.id for m in messages))

    metrics = Recorder()
    subscription = Subscription(
        fresh_nats, CONSUMER, {OrderConfirmed: handle, OrderRejected: handle}, MemoryInbox(), metrics
    )
    outbox = PostgresOutbox(db)
    async with running(subscription):
        await until(lambda: len(handled) == 12)
        await make_again(fresh_nats)
        async with running(relay_of(outbox, fresh_nats)):
            await until(lambda: metrics.outcomes["duplicate"] >= 12)
    assert sorted(handled) == sorted(envelope.id for envelope in sent)
    assert (await outbox.backlog()).entries == 0


async def test_of_two_relays_one_works_until_it_stops(fresh_nats: Nats, db: Postgres) -> None:
    first, second = (relay_of(PostgresOutbox(db), fresh_nats) for _ in range(2))
    async with running(second):
        async with running(first):
            await until(lambda: first.leased or second.leased)
            assert first.leased != second.leased
            await add(db, PostgresOutbox(db), [confirmed()])

            async def published() -> bool:
                return len(await stored_ids(fresh_nats)) == 1

            await until(published)
            assert first.leased != second.leased
        await until(lambda: second.leased)


async def test_stopping_publishes_what_is_left(fresh_nats: Nats, db: Postgres) -> None:
    outbox = PostgresOutbox(db)
    relay = relay_of(outbox, fresh_nats)
    async with running(relay):
        await until(lambda: relay.leased)
        await add(db, outbox, [confirmed(f"o-{n}") for n in range(30)])
    assert len(await stored_ids(fresh_nats)) == 30
    assert not relay.leased


async def test_a_relay_that_lost_its_lease_says_nothing_of_the_backlog(fresh_nats: Nats) -> None:
    outbox, metrics = MemoryOutbox(), Recorder()
    await fresh_nats.js.delete_stream("EVT_ORDER")
    outbox.entries = {entry.id: entry for entry in entries([confirmed()])}
    async with running(relay_of(outbox, fresh_nats, metrics)):
        await until(lambda: metrics.backlogs[-1:] == [1])
        outbox._lease = ("another", inf)
        await until(lambda: metrics.backlogs[-1] == 0)
    assert outbox.entries


async def test_a_refused_message_holds_up_its_own_aggregate_alone(fresh_nats: Nats) -> None:
    outbox, metrics = MemoryOutbox(), Recorder()
    large, behind, other = entries([confirmed("large"), confirmed("large"), confirmed("other")])
    large = replace(large, data=b"x" * (fresh_nats.client.max_payload + 1))
    outbox.entries = {entry.id: entry for entry in (large, behind)}
    async with running(relay_of(outbox, fresh_nats, metrics)) as _:
        await until(lambda: metrics.outcomes["refused"])
        outbox.entries[other.id] = other
        await until(lambda: other.id not in outbox.entries)
    assert list(outbox.entries) == [large.id, behind.id]
    assert await stored_ids(fresh_nats) == [other.id]


async def test_messages_of_a_missing_stream_hold_up_no_other_stream(fresh_nats: Nats) -> None:
    outbox = MemoryOutbox()
    commands = [Envelope.new(ReserveStock(), aggregate_id=f"o-{n}", source="order_svc") for n in range(2_500)]
    stuck, event = entries(commands), entries([confirmed("behind")])[0]
    outbox.entries = {entry.id: entry for entry in (*stuck, event)}
    await fresh_nats.js.delete_stream("CMD")
    async with running(relay_of(outbox, fresh_nats)):
        await until(lambda: event.id not in outbox.entries)
        assert set(outbox.entries) == {entry.id for entry in stuck}
        late = entries([confirmed("late")])[0]
        outbox.entries[late.id] = late
        await until(lambda: late.id not in outbox.entries)
        await ensure_topology(fresh_nats)
        await until(lambda: not outbox.entries, 40)
    assert sorted(await stored_ids(fresh_nats, "CMD")) == sorted(entry.id for entry in stuck)


async def test_a_broker_killed_while_publishing_loses_nothing(own_nats: NatsServer, db: Postgres) -> None:
    nats = Nats(own_nats.url, "test")
    await nats.open()
    await until(lambda: nats.connected)
    await ensure_topology(nats)
    outbox = PostgresOutbox(db)
    sent: list[str] = []

    async def write() -> None:
        for number in range(120):
            some = [confirmed(f"o-{number % 9}") for _ in range(5)]
            await add(db, outbox, some)
            sent.extend(envelope.id for envelope in some)

    async def empty() -> bool:
        return (await outbox.backlog()).entries == 0

    async with running(relay_of(outbox, nats)):
        writing = asyncio.create_task(write())
        for _ in range(2):
            before = len(sent)
            await until(lambda before=before: len(sent) > before + 60)
            own_nats.kill()
            own_nats.start()
        await writing
        await until(empty, 20)
    assert set(await stored_ids(nats)) == set(sent)
    await nats.close()


async def test_a_lost_database_connection_is_made_again(fresh_nats: Nats, db: Postgres, database: str) -> None:
    outbox = PostgresOutbox(db)
    relay = relay_of(outbox, fresh_nats)
    async with running(relay):
        await until(lambda: relay.leased)
        admin = await asyncpg.connect(database)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await admin.close()

        async def published() -> bool:
            return len(await stored_ids(fresh_nats)) == 1

        async def added() -> bool:
            try:
                await add(db, outbox, [confirmed()])
            except Unavailable:
                return False
            return True

        await until(added)
        await until(published)


async def test_documents_are_relayed_too(fresh_nats: Nats, mongodb: Engine) -> None:
    client: AsyncIOMotorClient[dict[str, object]] = AsyncIOMotorClient(mongodb.url)
    name = f"relay_{uuid7()}"
    collection = client[name]["orders"]
    outbox = MongoOutbox(collection)
    await outbox.ensure_index()
    sent = {f"o-{n}": [confirmed(f"o-{n}") for _ in range(2)] for n in range(20)}
    async with running(relay_of(outbox, fresh_nats)):
        await collection.insert_many(
            [{"_id": id, "pending": True, "outbox": outbox.embed(some)} for id, some in sent.items()]
        )
        outbox.nudge()

        async def empty() -> bool:
            return (await outbox.backlog()).entries == 0

        await until(empty)
    found = await stored_ids(fresh_nats)
    for some in sent.values():
        assert [id for id in found if id in {e.id for e in some}] == [e.id for e in some]
    assert [d async for d in collection.find({"pending": {"$exists": True}})] == []
    await client.drop_database(name)
    client.close()
