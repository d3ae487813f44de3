"""The event store, its read model and the saga's batches on a real PostgreSQL."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from google.protobuf.message import Message as ProtoMessage
from polymart.inventory.v1.events_pb2 import StockReserved

from chassis.clock import ManualClock
from chassis.errors import Aborted, AlreadyExists, NotFound
from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from chassis.money import Money
from chassis.postgres import Postgres
from order_svc.adapters.postgres_orders import PostgresOrders
from order_svc.adapters.read_model import read_model_faults
from order_svc.application.advancing import (
    Told,
    advance_orders,
    ask_again,
    change_order,
    expire_orders,
)
from order_svc.application.ports import Change, Filter, Request
from order_svc.domain import messages as m
from order_svc.domain.order import Line, Order, OrderPlaced, Status
from order_svc.domain.saga import RETRY_AFTER, Decision, decide, place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MUG = Line("MUG", 2, Money.parse("GBP", "2.55"), "mug", "Mug")


def a_request(customer_id: str = "alice", fingerprint: bytes = b"f") -> Request:
    return Request(customer_id, str(uuid4()), fingerprint)


def a_decision(customer_id: str = "alice", patience: timedelta = timedelta(minutes=30)) -> Decision:
    return place(uuid7(), OrderPlaced(customer_id, (MUG,), MUG.total, "tok", NOW + patience), NOW)


async def an_order(orders: PostgresOrders, **kwargs: object) -> Order:
    return await orders.add(a_request(), a_decision(**kwargs))  # type: ignore[arg-type]


def cause(payload: ProtoMessage | None = None) -> Envelope:
    return Envelope.new(payload or StockReserved(), aggregate_id="x", source="test")


def told(order: Order, *messages: m.Message) -> list[Told[Envelope]]:
    return [Told(order.order_id, message, cause()) for message in messages]


async def advance(orders: PostgresOrders, batch: Sequence[Told[Envelope]]) -> None:
    async with orders.transaction() as tx:
        await advance_orders(batch, orders=orders, clock=ManualClock(NOW), tx=tx)


ALL_THE_WAY = (m.StockReserved(), m.PaymentAuthorized(), m.StockCommitted(), m.PaymentCaptured())


async def outbox(db: Postgres) -> list[str]:
    rows = await db.fetch("SELECT subject FROM outbox ORDER BY seq")
    return [row["subject"].split(".")[-2] for row in rows]


async def test_a_placed_order_is_there_with_its_messages(db: Postgres, orders: PostgresOrders) -> None:
    decision = a_decision()
    assert await orders.add(a_request(), decision) == decision.order
    assert await orders.get(decision.order.order_id) == decision.order
    assert await outbox(db) == ["OrderPlaced", "ReserveStock"]
    (entry,) = await orders.history(decision.order.order_id)
    assert (entry.version, entry.type, entry.time) == (1, "polymart.order.v1.OrderPlaced", NOW)
    published = await db.fetchval("SELECT data FROM outbox ORDER BY seq LIMIT 1")
    assert published == entry.data


async def test_the_payment_token_goes_to_the_payment_and_nowhere_else(db: Postgres, orders: PostgresOrders) -> None:
    token = f"tok_{uuid4()}"
    placed = OrderPlaced("alice", (MUG,), MUG.total, token, NOW + timedelta(minutes=30))
    order = await orders.add(a_request(), place(uuid7(), placed, NOW))
    await advance(orders, told(order, *ALL_THE_WAY))
    assert (await orders.get(order.order_id)).payment_token == token
    rows = await db.fetch("SELECT subject, data FROM outbox")
    assert [row["subject"].split(".")[-2] for row in rows if token.encode() in row["data"]] == ["AuthorizePayment"]
    assert not any(token.encode() in entry.data for entry in await orders.history(order.order_id))


async def test_one_request_places_one_order_however_often_it_comes(db: Postgres, orders: PostgresOrders) -> None:
    request = a_request()
    placed = await asyncio.gather(*(orders.add(request, a_decision()) for _ in range(20)))
    assert len({order.order_id for order in placed}) == 1
    for table, count in (("orders", 1), ("events", 1), ("requests", 1), ("outbox", 2)):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == count  # noqa: S608
    await advance(orders, told(placed[0], m.StockReserved()))
    again = await orders.placed_by(request)
    assert again is not None
    assert again.version == 2


async def test_a_request_id_used_for_something_else_is_refused(orders: PostgresOrders) -> None:
    request = a_request()
    await orders.add(request, a_decision())
    other = Request(request.customer_id, request.request_id, b"other")
    with pytest.raises(AlreadyExists) as raised:
        await orders.placed_by(other)
    assert raised.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(AlreadyExists):
        await orders.add(other, a_decision())
    elsewhere = Request("bob", request.request_id, b"other")
    assert await orders.placed_by(elsewhere) is None


async def test_a_batch_takes_many_orders_further_and_ignores_what_comes_twice(
    db: Postgres, orders: PostgresOrders
) -> None:
    placed = [await an_order(orders) for _ in range(20)]
    batch = [one for order in placed for one in told(order, *ALL_THE_WAY, *reversed(ALL_THE_WAY))]
    await advance(orders, batch)
    digest = await _digest(db)
    for order in placed:
        now = await orders.get(order.order_id)
        assert (now.status, now.settled, now.version) == (Status.CONFIRMED, True, 6)
    await advance(orders, batch)
    await advance(orders, batch[::-1])
    assert await _digest(db) == digest
    assert await read_model_faults(db) == []
    sent = await outbox(db)
    assert sent.count("OrderConfirmed") == sent.count("CapturePayment") == sent.count("OrderSettled") == 20
    causes = await db.fetchval("SELECT count(*) FROM events WHERE (version > 1) = (causation_id IS NOT NULL)")
    assert causes == 20 * 6


async def _digest(db: Postgres) -> str:
    text = await db.fetchval("SELECT md5(string_agg(e::text, '' ORDER BY stream_id, version)) FROM events e")
    return str(text) + str(await db.fetchval("SELECT count(*) FROM outbox"))


async def test_batches_that_share_orders_take_turns(db: Postgres, orders: PostgresOrders) -> None:
    placed = [await an_order(orders) for _ in range(10)]
    stock = [one for order in placed for one in told(order, m.StockReserved())]
    await advance(orders, stock)
    await advance(orders, [one for order in placed for one in told(order, m.PaymentAuthorized())])
    await asyncio.gather(
        advance(orders, [one for order in placed for one in told(order, m.StockCommitted())]),
        advance(orders, [one for order in placed[::-1] for one in told(order, m.PaymentCaptured())]),
        advance(orders, stock[::-1]),
    )
    assert all([(await orders.get(order.order_id)).settled for order in placed])
    assert await read_model_faults(db) == []


async def test_a_decision_about_an_order_that_has_moved_on_is_aborted(db: Postgres, orders: PostgresOrders) -> None:
    order = await an_order(orders)
    stale = decide(order, m.CancelRequested(), NOW)
    await advance(orders, told(order, m.StockReserved()))
    with pytest.raises(Aborted):
        async with orders.transaction() as tx:
            await orders.append([Change(stale)], tx=tx)
    assert (await orders.get(order.order_id)).status is Status.PENDING
    assert await outbox(db) == ["OrderPlaced", "ReserveStock", "AuthorizePayment"]


async def test_a_reply_to_an_order_nobody_placed_is_an_error(orders: PostgresOrders) -> None:
    with pytest.raises(NotFound):
        await advance(orders, [Told(uuid7(), m.StockReserved(), cause())])


async def test_a_cancellation_wins_whether_it_comes_before_the_confirmation_or_after(
    db: Postgres, orders: PostgresOrders
) -> None:
    clock = ManualClock(NOW)
    for count in range(1, 11):
        order = await an_order(orders)
        await advance(orders, told(order, m.StockReserved()))
        results = await asyncio.gather(
            change_order(order.order_id, m.CancelRequested(), orders=orders, clock=clock),
            advance(orders, told(order, m.PaymentAuthorized())),
            return_exceptions=True,
        )
        now = await orders.get(order.order_id)
        assert (now.status, now.settled, results[1]) == (Status.CANCELLED, False, None)
        assert (await outbox(db)).count("VoidPayment") == (await outbox(db)).count("ReleaseStock") == count
        assert await change_order(order.order_id, m.CancelRequested(), orders=orders, clock=clock) == now
    assert await read_model_faults(db) == []


async def test_overdue_orders_are_rejected_once_by_whichever_replica_comes_first(
    db: Postgres, orders: PostgresOrders
) -> None:
    late = [await an_order(orders, patience=timedelta(seconds=n)) for n in range(30)]
    patient = await an_order(orders)
    confirmed = await an_order(orders, patience=timedelta(seconds=1))
    await advance(orders, told(confirmed, m.StockReserved(), m.PaymentAuthorized()))
    clock = ManualClock(NOW + timedelta(seconds=30))
    counts = await asyncio.gather(*(expire_orders(orders=orders, clock=clock, limit=10) for _ in range(4)))
    while count := await expire_orders(orders=orders, clock=clock, limit=10):
        counts.append(count)
    assert sum(counts) == 30
    for order in late:
        now = await orders.get(order.order_id)
        assert now.failure is not None
        assert (now.status, now.failure.reason) == (Status.REJECTED, "DEADLINE_EXCEEDED")
    assert (await orders.get(patient.order_id)).status is Status.PENDING
    assert (await outbox(db)).count("ReleaseStock") == 30


async def test_an_order_whose_answers_got_lost_asks_again_until_it_has_them(
    db: Postgres, orders: PostgresOrders
) -> None:
    order, done, asked = await an_order(orders), await an_order(orders), await an_order(orders)
    await advance(orders, told(done, *ALL_THE_WAY))
    await advance(orders, told(order, *ALL_THE_WAY[:2]))
    clock = ManualClock(NOW)

    async def asked_again() -> list[str]:
        await db.execute("DELETE FROM outbox")
        await asyncio.gather(*(ask_again(orders=orders, clock=clock) for _ in range(3)))
        rows = await db.fetch("SELECT subject FROM outbox ORDER BY subject")
        return [".".join(row["subject"].split(".")[2:]) for row in rows]

    clock.advance(RETRY_AFTER - timedelta(seconds=1))
    assert await asked_again() == []
    clock.advance(timedelta(seconds=1))
    expected = [f"CapturePayment.{order.order_id}", f"CommitStock.{order.order_id}", f"ReserveStock.{asked.order_id}"]
    assert sorted(await asked_again()) == expected
    assert await asked_again() == []
    clock.advance(RETRY_AFTER)
    assert sorted(await asked_again()) == expected
    assert (await orders.get(order.order_id)).version == 3
    await advance(orders, told(order, *ALL_THE_WAY[2:]))
    assert (await orders.get(order.order_id)).settled
    assert await read_model_faults(db) == []
    clock.advance(RETRY_AFTER)
    assert await asked_again() == [expected[2]]


async def test_a_read_model_that_differs_from_the_events_is_found_out(db: Postgres, orders: PostgresOrders) -> None:
    placed = [await an_order(orders) for _ in range(6)]
    await advance(orders, told(placed[0], *ALL_THE_WAY))
    await advance(orders, told(placed[1], m.StockRejected((m.Shortage("MUG", 2, 1),))))
    await change_order(placed[2].order_id, m.CancelRequested(), orders=orders, clock=ManualClock(NOW))
    assert await read_model_faults(db) == []

    await db.execute("UPDATE orders SET status = 'CONFIRMED' WHERE order_id = $1", placed[1].order_id)
    await db.execute("DELETE FROM orders WHERE order_id = $1", placed[3].order_id)
    await db.execute("DELETE FROM events WHERE stream_id = $1 AND version = 2", placed[2].order_id)
    await db.execute("UPDATE orders SET order_id = $2 WHERE order_id = $1", placed[4].order_id, uuid7())
    faults = await read_model_faults(db)
    for order, word in (
        (placed[1], "status"),
        (placed[2], "version"),
        (placed[3], "isn't in"),
        (placed[4], "isn't in"),
    ):
        assert any(order.order_id in fault and word in fault for fault in faults)
    assert any("has no events" in fault for fault in faults)


async def test_lists_are_newest_first_and_filtered(orders: PostgresOrders) -> None:
    alice = [await an_order(orders) for _ in range(5)]
    bob = [await orders.add(a_request("bob"), a_decision("bob")) for _ in range(3)]
    guest = await orders.add(a_request(""), a_decision(""))
    await change_order(alice[2].order_id, m.CancelRequested(), orders=orders, clock=ManualClock(NOW))

    async def ids(which: Filter, limit: int = 100) -> list[str]:
        found: list[str] = []
        before = None
        while page := await orders.page(which, before=before, limit=limit):
            found += [order.order_id for order in page]
            before = page[-1].place_time, page[-1].order_id
        return found

    everything = [order.order_id for order in (*alice, *bob, guest)][::-1]
    assert await ids(Filter()) == await ids(Filter(), limit=2) == everything
    assert await ids(Filter("bob"), limit=2) == [order.order_id for order in bob[::-1]]
    assert await ids(Filter(status=Status.CANCELLED)) == [alice[2].order_id]
    assert await ids(Filter("alice", Status.PENDING), limit=3) == [alice[n].order_id for n in (4, 3, 1, 0)]
    assert await ids(Filter("bob", Status.CANCELLED)) == []
    assert await ids(Filter(placed_before=NOW)) == await ids(Filter("bob", placed_from=NOW + timedelta(1))) == []
    assert await ids(Filter(placed_from=NOW, placed_before=NOW + timedelta(1)), limit=2) == everything


async def test_each_list_is_read_by_an_index_of_its_own(
    db: Postgres, orders: PostgresOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db.execute(
        """
        INSERT INTO orders (order_id, customer_id, status, settled, currency, total_nanos, place_time, update_time,
            deadline, version)
        SELECT gen_random_uuid(), 'c' || n % 300, CASE WHEN n % 50 = 0 THEN 'REJECTED' ELSE 'CONFIRMED' END, n % 50 > 0,
            'GBP', 1, $1::timestamptz + n * interval '1 minute', $1, $1, 1 FROM generate_series(1, 6000) AS n
        """,
        NOW,
    )
    await db.execute("ANALYZE orders")
    plans: list[str] = []
    fetch = db.fetch

    async def explained(query: str, *args: object) -> object:
        plans.append("\n".join(row[0] for row in await fetch(f"EXPLAIN {query}", *args)))
        return await fetch(query, *args)

    monkeypatch.setattr(db, "fetch", explained)
    before = NOW + timedelta(days=2), uuid7()
    for which, index in (
        (Filter(), "orders_by_time"),
        (Filter(placed_from=NOW + timedelta(days=1), placed_before=NOW + timedelta(days=3)), "orders_by_time"),
        (Filter("c7"), "orders_by_customer"),
        (Filter("c7", Status.CONFIRMED, placed_from=NOW), "orders_by_customer"),
        (Filter(status=Status.REJECTED), "orders_by_status"),
    ):
        for position in (None, before):
            page = await orders.page(which, before=position, limit=20)
            assert page
            # A customer's few may be sorted after they were found; of all others only one page is read.
            assert index in plans[-1], plans[-1]
            assert "Sort" not in plans[-1] or which.customer_id, plans[-1]
    await orders.stuck(NOW, NOW, after=None, limit=20)
    assert "orders_unsettled" in plans[-2], plans
