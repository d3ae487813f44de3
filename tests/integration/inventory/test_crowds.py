"""Many orders for few units, at several instances, some of which die, with every message delivered more than once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from polymart.inventory.v1.commands_pb2 import CommitStock, ReleaseStock
from polymart.inventory.v1.events_pb2 import StockCommitted, StockRejected, StockReleased, StockReserved
from polymart.inventory.v1.inventory_service_pb2 import ConfigureStockRequest, CreateLocationRequest, StockSettings
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from polymart.inventory.v1.location_pb2 import Location

from chassis.messaging.nats import Nats
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres
from inventory_svc.adapters.postgres_stock import PostgresBook, PostgresWarehouse
from inventory_svc.application.levels import set_stock
from inventory_svc.application.reservations import carry_out
from inventory_svc.bootstrap import build, migrate
from inventory_svc.config import InventoryConfig
from inventory_svc.domain.allocation import Line
from inventory_svc.domain.reservations import Command, Commit, Release, Reserve
from inventory_svc.domain.stock import Count
from tests.conftest import Engine, until
from tests.integration.inventory.support import (
    FAULTS,
    Stage,
    count,
    digest,
    kill,
    outbox_is_empty,
    reserve,
    running,
    stage,
    stub_of,
    units,
)


@pytest.fixture
async def config(database: str, nats: Engine) -> InventoryConfig:
    made = InventoryConfig(postgres_url=database, nats_url=nats.url)
    await migrate(made)
    return made


@pytest.fixture
async def orders(fresh_nats: Nats) -> AsyncIterator[Stage]:
    async with stage(fresh_nats, "inventory") as made:
        yield made


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def test_a_hundred_buyers_of_one_unit_at_two_instances(
    config: InventoryConfig, orders: Stage, db: asyncpg.Connection
) -> None:
    async with running(build(config), build(config)) as (one, _), stub_of(one.address, InventoryServiceStub) as stub:
        await count(stub, A=1, B=100)
        await asyncio.gather(*(orders.send(reserve(f"o{n}", B=1, A=1)) for n in range(100)))
        await orders.all_handled()
        await orders.answered(StockRejected, 99)
        assert len(orders.answers(StockReserved)) == 1
        assert await units(stub, "A") == (1, 1)
        assert await units(stub, "B") == (100, 1)
    assert await db.fetch(FAULTS) == []


async def test_two_hundred_orders_of_the_same_ten_skus_with_stock_for_half_of_them(
    config: InventoryConfig, orders: Stage, fresh_nats: Nats, db: asyncpg.Connection
) -> None:
    dice = random.Random(11)
    skus = [f"S{n}" for n in range(10)]
    held = {"main": 45, "north": 35, "attic": 20}
    async with (
        running(build(config), build(config)) as (one, two),
        stub_of(one.address, InventoryServiceStub) as stub,
        stub_of(two.address, InventoryServiceStub) as other,
    ):
        for priority, name in enumerate(("north", "attic")):
            made = Location(location_id=name, priority=priority + 1)
            await stub.CreateLocation(CreateLocationRequest(location=made), timeout=5)
        for name, each in held.items():
            await count(stub, name, **dict.fromkeys(skus, each))
        # Everybody wants one of each, named in an order of their own.
        wishes = [reserve(f"o{n}", **dict.fromkeys(dice.sample(skus, 10), 1)) for n in range(200)]
        calls = [_configured(s, dice.sample(skus, 10)) for s in (stub, other) for _ in range(5)]
        await asyncio.gather(*(orders.send(wish) for wish in wishes), *calls)
        await orders.answered(StockReserved, 100)
        await orders.answered(StockRejected, 100)
        reserved = orders.answers(StockReserved)
        # Nobody's parcel was split: each got all from one location, and each location gave all it had.
        served = Counter(tuple({a.location_id for a in r.allocations}) for r in reserved)
        assert served == {(name,): each for name, each in held.items()}
        await asyncio.gather(*(orders.send(CommitStock(order_id=r.order_id)) for r in reserved))
        await orders.answered(StockCommitted, 100)
        await orders.all_handled()
        assert [await units(stub, sku) for sku in skus] == [(0, 0)] * 10
        consumer = await fresh_nats.js.consumer_info("CMD", "inventory_svc-CMD")
    assert await db.fetch(FAULTS) == []
    assert await db.fetchval("SELECT min(-on_hand_delta) FROM movements WHERE kind = 'COMMIT'") == 1
    # Each command was delivered once, and PostgreSQL broke no circle and took nothing back.
    assert consumer.delivered is not None
    assert consumer.delivered.consumer_seq == 300
    await until(lambda: _nobody_else(db))
    statistics = await db.fetchrow("SELECT * FROM pg_stat_database WHERE datname = current_database()")
    assert (statistics["deadlocks"], statistics["xact_rollback"]) == (0, 0)


async def _configured(stub: InventoryServiceStub, skus: list[str]) -> None:
    """Something else that locks the same rows, in an order of its own."""
    for low in (3, 5):
        settings = [StockSettings(sku=sku, low_stock=low) for sku in skus]
        await stub.ConfigureStock(ConfigureStockRequest(settings=settings), timeout=10)


async def _nobody_else(db: asyncpg.Connection) -> bool:
    """The others report what they did when they leave."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return not await db.fetchval(others)


async def test_many_orders_of_one_sku_in_one_batch(
    config: InventoryConfig, orders: Stage, db: asyncpg.Connection
) -> None:
    async with running(build(config)) as (service,), stub_of(service.address, InventoryServiceStub) as stub:
        await count(stub, A=10)
    # Waiting when the service comes up, they are one fetch.
    await orders.send(*(reserve(f"o{n}", A=4) for n in range(3)), reserve("last", A=2))
    async with running(build(config)) as (service,), stub_of(service.address, InventoryServiceStub) as stub:
        await orders.all_handled()
        assert await units(stub, "A") == (10, 10)
        await orders.answered(StockReserved, 3)
        assert [r.order_id for r in orders.answers(StockRejected)] == ["o2"]
        assert await db.fetchval("SELECT count(DISTINCT at) FROM movements WHERE order_id IS NOT NULL") == 1
    assert await db.fetch(FAULTS) == []


async def test_a_crowd_in_any_order_with_an_instance_killed_and_everything_sent_again(
    config: InventoryConfig, orders: Stage, database: str, db: asyncpg.Connection
) -> None:
    dice = random.Random(7)
    skus = "ABCDEF"
    wishes = [reserve(f"o{n}", **{s: dice.randint(1, 4) for s in dice.sample(skus, 3)}) for n in range(150)]
    releases = [ReleaseStock(order_id=w.order_id) for w in dice.sample(wishes, 60)]
    async with (
        running(build(config), build(config)) as (one, two),
        stub_of(one.address, InventoryServiceStub) as stub,
    ):
        await count(stub, **dict.fromkeys(skus, 200))
        crowd = [*wishes, *releases]
        dice.shuffle(crowd)
        sent = [envelope for n in range(0, len(crowd), 30) for envelope in await orders.send(*crowd[n : n + 30])]
        kill(two)
        # What the dead one held would be redelivered in half a minute.
        await orders.resend(sent)
        await until(lambda: len(orders.answers(StockReserved)) + len(orders.answers(StockRejected)) >= 150, 30)
        reserved = {r.order_id for r in orders.answers(StockReserved)}
        commits = [CommitStock(order_id=id) for id in sorted(reserved - {r.order_id for r in releases})]
        await orders.send(*commits)
        await orders.answered(StockCommitted, len(commits), 30)
        await orders.answered(StockReleased, len(releases), 30)
    assert await db.fetch(FAULTS) == []
    assert await db.fetchval("SELECT sum(reserved) FROM stock") == 0
    sold = sum(line.quantity for w in wishes if w.order_id in {c.order_id for c in commits} for line in w.lines)
    assert await db.fetchval("SELECT sum(on_hand) FROM stock") == 200 * len(skus) - sold
    assert sold > 0

    before = await digest(database)
    await orders.refill()
    async with running(build(config)):
        await orders.all_handled()
        await outbox_is_empty(database)
    assert await digest(database) == before


async def test_the_same_orders_in_many_transactions_at_once(
    config: InventoryConfig, db: asyncpg.Connection, database: str
) -> None:
    pool = Postgres(database)
    await pool.open()
    warehouse = PostgresWarehouse(pool, PostgresOutbox(pool))
    await set_stock([Count("A", 100), Count("B", 100)], request_id="", warehouse=warehouse)
    dice = random.Random(3)
    ids = [f"o{n}" for n in range(8)]

    async def batch(*commands: Command) -> None:
        async with warehouse.transaction() as book:
            await carry_out(dice.sample(commands, len(commands)), book=book)

    wishes = [Reserve(id, (Line("B", 2), Line("A", 1))) for id in ids]
    await asyncio.gather(*(batch(*wishes) for _ in range(10)))
    assert await db.fetchval("SELECT sum(reserved) FROM stock") == 8 * 3
    await asyncio.gather(*(batch(*(Commit(id) for id in ids[:4]), *map(Release, ids[4:])) for _ in range(10)))
    assert await db.fetchval("SELECT sum(reserved) FROM stock") == 0
    assert await db.fetchval("SELECT sum(on_hand) FROM stock") == 200 - 4 * 3
    assert await db.fetch(FAULTS) == []
    await pool.close()


async def test_a_sku_first_stocked_while_a_batch_waits_for_another_is_none_of_that_batch(
    database: str, config: InventoryConfig, db: asyncpg.Connection
) -> None:
    store = Postgres(database)
    await store.open()
    try:
        await db.execute("INSERT INTO items (sku) VALUES ('a')")

        async def levels() -> set[str]:
            async with store.transaction() as tx:
                return set(await PostgresBook(tx, PostgresOutbox(store)).levels({"a", "b"}))

        async def waits() -> bool:
            return bool(await store.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        async with db.transaction():
            await db.execute("SELECT FROM items WHERE sku = 'a' FOR UPDATE")
            locking = asyncio.create_task(levels())
            await until(waits)
            await store.execute("INSERT INTO items (sku) VALUES ('b')")
        assert await locking == {"a"}
        assert await levels() == {"a", "b"}
    finally:
        await store.close()
