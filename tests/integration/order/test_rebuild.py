"""The read side rebuilt on a real PostgreSQL, with orders that come in and move meanwhile."""

import asyncio
import contextlib
from datetime import timedelta
from uuid import uuid4

import pytest

from chassis.clock import ManualClock
from chassis.errors import Aborted, FailedPrecondition
from chassis.ids import uuid7
from chassis.postgres import Postgres
from order_svc.adapters.postgres_orders import PostgresOrders
from order_svc.adapters.read_model import read_model_faults
from order_svc.adapters.rebuild import PostgresReadModel
from order_svc.application.advancing import change_order
from order_svc.application.ports import Filter
from order_svc.domain import messages as m
from order_svc.domain.order import Order
from tests.integration.order.test_store import ALL_THE_WAY, NOW, advance, an_order, told

SCHEMA = """
SELECT indexname || ': ' || indexdef FROM pg_indexes WHERE tablename IN ('orders', 'shipments')
UNION SELECT relname || ': ' || coalesce(array_to_string(reloptions, ','), '') FROM pg_class
    WHERE relname IN ('orders', 'shipments')
UNION SELECT conname || ': ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid IN ('orders'::regclass, 'shipments'::regclass) AND contype IN ('c', 'p')
ORDER BY 1
"""


async def shipped(orders: PostgresOrders) -> Order:
    order = await an_order(orders)
    await advance(orders, told(order, *ALL_THE_WAY))
    request = m.ShipmentRequested(str(uuid4()), uuid7(), "bob")
    return await change_order(order.order_id, request, orders=orders, clock=ManualClock(NOW))


async def schema(db: Postgres) -> list[str]:
    return [row[0] for row in await db.fetch(SCHEMA)]


async def test_a_ruined_read_side_is_compared_and_put_right(db: Postgres, orders: PostgresOrders) -> None:
    placed = [await shipped(orders) for _ in range(4)]
    before = await schema(db)
    await db.execute("UPDATE orders SET status = 'PENDING', settled = false WHERE order_id = $1", placed[0].order_id)
    await db.execute("DELETE FROM orders WHERE order_id = $1", placed[1].order_id)
    await db.execute("INSERT INTO orders SELECT (json_populate_record(o, json_build_object('order_id', $2::text))).* "
                     "FROM orders o WHERE order_id = $1", placed[2].order_id, phantom := uuid7())  # fmt: skip
    await db.execute("UPDATE shipments SET deliver_time = now() WHERE order_id = $1", placed[3].order_id)
    faults = await read_model_faults(db)
    assert len(faults) == 4

    model = PostgresReadModel(db)
    looked = await model.rebuild(swap=False)
    assert (looked.orders, looked.difference_count) == (4, 4)
    said = " ".join(looked.differences)
    assert f"order {placed[0].order_id} differs in status, settled in the old read model" in looked.differences
    assert f"order {placed[1].order_id} is missing" in said
    assert f"order {phantom} has no events" in said
    assert f"shipment {placed[3].shipments[0].shipment_id} differs" in said
    assert await read_model_faults(db) == faults

    assert (await model.rebuild(swap=True)).differences == looked.differences
    assert await read_model_faults(db) == []
    assert await schema(db) == before
    again = await model.rebuild(swap=True)
    assert (again.orders, again.difference_count) == (4, 0)
    assert await schema(db) == before


async def test_orders_that_come_in_and_move_meanwhile_are_in_the_new_read_side(
    db: Postgres, orders: PostgresOrders
) -> None:
    for _ in range(30):
        await an_order(orders)
    stopping = asyncio.Event()

    async def buy() -> int:
        bought = 0
        while not stopping.is_set():
            await shipped(orders)
            bought += 1
        return bought

    buyers = [asyncio.create_task(buy()) for _ in range(4)]
    try:
        for _ in range(5):
            rebuilt = await PostgresReadModel(db).rebuild(swap=True)
            assert rebuilt.difference_count == 0, rebuilt.differences
    finally:
        stopping.set()
    bought = sum(await asyncio.gather(*buyers))
    assert bought
    assert await read_model_faults(db) == []
    assert len(await orders.page(Filter(), before=None, limit=10_000)) == 30 + bought
    assert await db.fetchval("SELECT count(*) FROM shipments") == bought


async def test_two_rebuilds_dont_meet_and_one_that_died_is_no_hindrance(db: Postgres, orders: PostgresOrders) -> None:
    await shipped(orders)
    model = PostgresReadModel(db)
    results = await asyncio.gather(*(model.rebuild(swap=True) for _ in range(3)), return_exceptions=True)
    assert {type(result).__name__ for result in results} <= {"Rebuilt", Aborted.__name__}
    assert any(not isinstance(result, BaseException) for result in results)
    dying = asyncio.create_task(model.rebuild(swap=True))
    await asyncio.sleep(0)
    dying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await dying
    await db.execute("CREATE TABLE IF NOT EXISTS next_orders (left_by text)")
    assert (await model.rebuild(swap=True)).orders == 1
    assert await read_model_faults(db) == []


async def test_events_that_cant_be_read_are_named_and_the_old_stays(db: Postgres, orders: PostgresOrders) -> None:
    order = await shipped(orders)
    await db.execute("UPDATE events SET type = 'Bogus' WHERE version = 2")
    with pytest.raises(FailedPrecondition, match=f"order {order.order_id} can't be read") as raised:
        await PostgresReadModel(db).rebuild(swap=True)
    assert raised.value.reason == "EVENTS_UNREADABLE"
    assert len(await orders.page(Filter(placed_from=NOW - timedelta(1)), before=None, limit=5)) == 1
