"""order_svc over gRPC and NATS, with doubles for its peers."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from polymart.catalog.v1.events_pb2 import ProductCreated, ProductDeleted, ProductUpdated
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ARCHIVED, PRODUCT_STATUS_DRAFT
from polymart.inventory.v1 import commands_pb2 as stock
from polymart.inventory.v1.events_pb2 import Shortage, StockRejected, StockReserved
from polymart.order.v1 import events_pb2, order_pb2
from polymart.order.v1 import order_service_pb2 as pb
from polymart.payment.v1 import commands_pb2 as payment
from polymart.payment.v1.events_pb2 import PaymentAuthorized, PaymentCaptureFailed, PaymentDeclined

from chassis.clock import ManualClock
from chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.topology import TOPOLOGY
from chassis.postgres import Postgres
from order_svc.adapters.read_model import read_model_faults
from tests.conftest import free_port, until
from tests.integration.order.conftest import Replica, Shop, place_request

CONFIRMED, REJECTED, CANCELLED = (
    order_pb2.ORDER_STATUS_CONFIRMED,
    order_pb2.ORDER_STATUS_REJECTED,
    order_pb2.ORDER_STATUS_CANCELLED,
)


def silent(_: Message) -> None:
    """A peer that doesn't answer."""


def authorized(command: payment.AuthorizePayment) -> Message:
    return PaymentAuthorized(payment_id=command.payment_id)


async def test_an_order_goes_all_the_way(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("POST", "4.00", untracked=True)
    replica = await shop.open()
    placed = await replica.place(("MUG", 2), ("POST", 1), ("MUG", 1), customer_id="alice")
    assert placed.status == order_pb2.ORDER_STATUS_PENDING
    assert (placed.total.units, placed.total.nanos) == (11, 500_000_000)
    assert [line.product_name for line in placed.lines] == ["Mug", "Post", "Mug"]
    states = [state async for state in replica.watch(placed.order_id, after=1)]
    assert [state.version for state in states] == [2, 3, 4, 5, 6]
    assert states[-1] == await replica.get(placed.order_id)
    assert (states[-1].status, states[-1].settled) == (CONFIRMED, True)

    asked = {c.payload.DESCRIPTOR.name: c for c in shop.commands}
    assert list(asked)[:2] == ["ReserveStock", "AuthorizePayment"]
    assert set(asked) == {"ReserveStock", "AuthorizePayment", "CommitStock", "CapturePayment"}
    assert asked["ReserveStock"].payload == stock.ReserveStock(
        order_id=placed.order_id, lines=[stock.ReservationLine(sku="MUG", quantity=3)]
    )
    assert asked["AuthorizePayment"].payload == payment.AuthorizePayment(
        payment_id=placed.order_id, amount=placed.total, payment_token="tok_approved"
    )
    assert {c.correlation_id for c in shop.commands} == {placed.order_id}
    causes = {reply.id: reply.payload.DESCRIPTOR.name for reply in shop.replies}
    assert causes[str(asked["AuthorizePayment"].causation_id)] == "StockReserved"

    history = await replica.call("GetOrderHistory", pb.GetOrderHistoryRequest(order_id=placed.order_id))
    assert [entry.event.TypeName().rpartition(".")[2] for entry in history.entries][:3] == [
        "OrderPlaced",
        "OrderStockReserved",
        "OrderConfirmed",
    ]
    confirmed = events_pb2.OrderConfirmed()
    assert history.entries[2].event.Unpack(confirmed)
    assert (list(confirmed.lines), confirmed.total) == (list(placed.lines), placed.total)
    assert await read_model_faults(db) == []


async def test_a_refusal_gives_back_what_was_held(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    replica = await shop.open()

    shop.answers[stock.ReserveStock] = lambda c: StockRejected(
        order_id=c.order_id, shortages=[Shortage(sku="MUG", wanted=2, available=1)]
    )
    short = await replica.final((await replica.place(("MUG", 2))).order_id)
    assert (short.status, short.failure.reason) == (REJECTED, order_pb2.ORDER_FAILURE_REASON_OUT_OF_STOCK)
    assert short.failure.message == "MUG: 2 wanted, 1 available"
    assert shop.asked(short.order_id) == ["ReserveStock"]

    shop.answers[stock.ReserveStock] = lambda c: StockReserved(order_id=c.order_id)
    shop.answers[payment.AuthorizePayment] = lambda c: PaymentDeclined(payment_id=c.payment_id, reason="no funds")
    declined = await replica.final((await replica.place(("MUG", 2))).order_id)
    assert (declined.status, declined.failure.message) == (REJECTED, "no funds")
    assert shop.asked(declined.order_id) == ["ReserveStock", "AuthorizePayment", "ReleaseStock"]

    shop.answers[payment.AuthorizePayment] = authorized
    shop.answers[payment.CapturePayment] = lambda c: PaymentCaptureFailed(payment_id=c.payment_id, reason="expired")
    lost = await replica.final((await replica.place(("MUG", 2))).order_id)
    assert (lost.status, lost.failure.reason) == (CANCELLED, order_pb2.ORDER_FAILURE_REASON_CAPTURE_FAILED)
    assert set(shop.asked(lost.order_id)[-2:]) == {"ReleaseStock", "VoidPayment"}
    assert await read_model_faults(db) == []


async def test_cancelling_works_until_the_order_is_shipped(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    replica = await shop.open()
    shop.answers[payment.AuthorizePayment] = silent
    order = await replica.place(("MUG", 1))
    await until(lambda: "AuthorizePayment" in shop.asked(order.order_id))
    cancelled = await replica.cancel(order.order_id)
    assert (cancelled.status, cancelled.settled) == (CANCELLED, False)
    assert (await replica.cancel(order.order_id)).status == CANCELLED
    await replica.final(order.order_id)
    assert set(shop.asked(order.order_id)[-2:]) == {"ReleaseStock", "VoidPayment"}

    shop.answers[payment.AuthorizePayment] = authorized
    order = await replica.final((await replica.place(("MUG", 1))).order_id)
    await replica.cancel(order.order_id)
    cancelled = await replica.final(order.order_id)
    assert (cancelled.status, cancelled.failure.message) == (CANCELLED, "cancelled by the customer")
    assert set(shop.asked(order.order_id)[-2:]) == {"ReleaseStock", "VoidPayment"}
    order = await replica.final((await replica.place(("MUG", 1))).order_id)
    await replica.ship(order.order_id)
    with pytest.raises(FailedPrecondition) as raised:
        await replica.cancel(order.order_id)
    assert raised.value.reason == "ORDER_SHIPPED"
    with pytest.raises(NotFound):
        await replica.cancel(str(uuid4()))


async def test_an_order_nobody_answers_is_rejected_at_its_deadline(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    clock = ManualClock()
    replica = await shop.open(clock=clock, order_deadline_seconds=60)
    shop.answers[stock.ReserveStock] = silent
    order = await replica.place(("MUG", 1))
    await until(lambda: shop.asked(order.order_id))
    clock.advance(timedelta(seconds=61))
    rejected = await replica.final(order.order_id)
    assert rejected.failure.reason == order_pb2.ORDER_FAILURE_REASON_DEADLINE_EXCEEDED
    await shop.publish(StockReserved(order_id=order.order_id), order.order_id)
    # Messages are taken in turn: once the second order is through, the late reply has been seen.
    shop.answers[stock.ReserveStock] = lambda c: StockReserved(order_id=c.order_id)
    await replica.final((await replica.place(("MUG", 1))).order_id)
    assert await replica.get(order.order_id) == rejected


async def test_replies_that_come_again_change_nothing(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    replica = await shop.open()
    ids = [(await replica.place(("MUG", 1))).order_id for _ in range(10)]
    await asyncio.gather(*map(replica.final, ids))

    async def digest() -> object:
        return await db.fetchval("SELECT md5(string_agg(e::text, '' ORDER BY stream_id, version)) FROM events e")

    before, replies = await digest(), list(shop.replies)
    for stream in ("EVT_INVENTORY", "EVT_PAYMENT"):
        await shop.nats.js.delete_stream(stream)
    await ensure_topology(shop.nats)
    for reply in replies[::-1]:
        await shop.nats.js.publish(reply.subject, reply.data, headers=reply.headers())
    another = await replica.place(("MUG", 1))
    await replica.final(another.order_id)
    await db.execute("DELETE FROM events WHERE stream_id = $1", another.order_id)
    assert await digest() == before


async def test_one_request_gets_one_order_from_every_replica(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    one, other = await shop.open(), await shop.open()
    request = place_request(("MUG", 1), customer_id="alice")
    answers = await asyncio.gather(*(r.call("PlaceOrder", request) for r in (one, other) * 8))
    assert len({order.order_id for order in answers}) == 1
    settled = await one.final(answers[0].order_id)

    shop.catalog.products.clear()
    await shop.publish(ProductDeleted(product_id="p-MUG", version=2), "p-MUG")
    request.request_id = request.request_id.upper()
    assert await other.call("PlaceOrder", request) == settled
    request.lines[0].quantity = 2
    with pytest.raises(AlreadyExists) as raised:
        await other.call("PlaceOrder", request)
    assert raised.value.reason == "REQUEST_ID_REUSED"
    request.customer_id = ""
    await until(lambda: _unknown(one, request))


async def _unknown(replica: Replica, request: pb.PlaceOrderRequest) -> bool:
    request.request_id = str(uuid4())
    try:
        await replica.call("PlaceOrder", request)
    except InvalidArgument:
        return True
    return False


async def test_prices_that_were_heard_need_no_catalog(shop: Shop) -> None:
    mug, lamp = shop.catalog.sells("MUG"), shop.catalog.sells("LAMP", "9.00")
    replica = await shop.open()
    await shop.publish(ProductCreated(product=mug), "p-MUG")

    async def heard() -> bool:
        await replica.place(("MUG", 1))
        asked, shop.catalog.asked = shop.catalog.asked, 0
        return not asked

    await until(heard)
    await replica.place(("LAMP", 1))
    assert shop.catalog.asked == 1
    await shop.catalog_server.stop(0)
    order = await replica.place(("MUG", 1), ("LAMP", 1))
    assert order.total.units == 11
    with pytest.raises(Unavailable) as raised:
        await replica.place(("MUG", 1), ("CHAIR", 1))
    assert raised.value.reason == "CATALOG_UNAVAILABLE"
    assert "127.0.0.1" not in str(raised.value)
    assert lamp.variants[0].price == order.lines[1].unit_price


async def test_only_what_is_active_is_sold_whether_it_was_heard_or_asked_for(shop: Shop) -> None:
    replica = await shop.open()
    mug = shop.catalog.sells("MUG")
    await shop.publish(ProductCreated(product=mug), "p-MUG")
    await replica.place(("MUG", 1))
    for version, status in ((2, PRODUCT_STATUS_ARCHIVED), (4, PRODUCT_STATUS_DRAFT)):
        withdrawn = shop.catalog.sells("MUG", version=version, status=status)
        await shop.publish(ProductUpdated(product=withdrawn), "p-MUG")
        await until(lambda: _unknown(replica, place_request(("MUG", 1))))
        again = shop.catalog.sells("MUG", "3.00", version=version + 1)
        await shop.publish(ProductUpdated(product=again), "p-MUG")
        assert (await _sold_again(replica)).total.units == 3


async def _sold_again(replica: Replica) -> order_pb2.Order:
    placed: list[order_pb2.Order] = []

    async def sold() -> bool:
        try:
            placed.append(await replica.place(("MUG", 1)))
        except InvalidArgument:
            return False
        return True

    await until(sold)
    return placed[0]


async def test_orders_are_accepted_while_the_broker_is_down(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    cut_off = await shop.open(nats_url=f"nats://127.0.0.1:{free_port()}")
    order = await cut_off.place(("MUG", 1))
    assert order.status == order_pb2.ORDER_STATUS_PENDING
    await cut_off.service.drain_and_stop()
    connected = await shop.open()
    assert (await connected.final(order.order_id)).status == CONFIRMED


async def test_a_watch_sees_what_other_replicas_do(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.answers[payment.AuthorizePayment] = silent
    one, other = await shop.open(), await shop.open()
    order = await one.place(("MUG", 1))
    await until(lambda: "AuthorizePayment" in shop.asked(order.order_id))
    watches = [asyncio.ensure_future(_states(r.watch(order.order_id))) for r in (one, other, one, other)]
    resumed = asyncio.ensure_future(_states(other.watch(order.order_id, after=2)))
    await one.cancel(order.order_id)
    for versions in await asyncio.gather(*watches):
        assert versions == list(range(versions[0], 7))
    assert await resumed == [3, 4, 5, 6]
    assert await _states(other.watch(order.order_id)) == [6]
    assert await _states(other.watch(order.order_id, after=6)) == []
    with pytest.raises(NotFound):
        await _states(one.watch(str(uuid4())))


async def _states(watch: AsyncIterator[order_pb2.Order]) -> list[int]:
    return [order.version async for order in watch]


async def test_a_service_that_stops_tells_its_watchers(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.answers[stock.ReserveStock] = silent
    replica = await shop.open()
    order = await replica.place(("MUG", 1))
    watch = replica.watch(order.order_id)
    assert (await anext(watch)).version == 1
    stopping = asyncio.ensure_future(replica.service.drain_and_stop())
    with pytest.raises(Unavailable):
        await anext(watch)
    await asyncio.wait_for(stopping, 5)


async def test_two_hundred_watchers_cost_one_subscription(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.answers[payment.AuthorizePayment] = silent
    one, other = await shop.open(), await shop.open()
    placed = [await one.place(("MUG", 1)) for _ in range(10)]
    await until(lambda: all("AuthorizePayment" in shop.asked(order.order_id) for order in placed))
    (nats,) = [resource for resource in other.service.service.resources if isinstance(resource, Nats)]
    began = asyncio.Queue[None]()

    async def watched(order_id: str) -> list[int]:
        seen = []
        async for order in other.watch(order_id, timeout=60):
            if not seen:
                began.put_nowait(None)
            seen.append(order.version)
        return seen

    watches = [asyncio.ensure_future(watched(order.order_id)) for order in placed for _ in range(20)]
    for _ in watches:
        await asyncio.wait_for(began.get(), 30)
    subjects = [subscription.subject for subscription in nats.client._subs.values()]
    assert subjects.count("evt.order.>") == 1
    assert len(subjects) <= len(TOPOLOGY.consumers_of("order_svc")) + 2
    await asyncio.gather(*(one.cancel(order.order_id) for order in placed))
    for versions in await asyncio.gather(*watches):
        assert versions == list(range(versions[0], 7))


async def test_five_hundred_requests_with_a_hundred_ids_place_a_hundred_orders(shop: Shop, db: Postgres) -> None:
    shop.catalog.sells("MUG")
    one, other = await shop.open(), await shop.open()
    requests = [place_request(("MUG", n % 7 + 1), customer_id=f"c{n % 3}") for n in range(100)]
    calls = [(replica, request) for request in requests for replica in (one, other, one, other, one)]
    random.Random(7).shuffle(calls)
    answers = await asyncio.gather(*(r.call("PlaceOrder", request, timeout=60) for r, request in calls))
    ids: dict[str, set[str]] = defaultdict(set)
    for (_, request), order in zip(calls, answers, strict=True):
        ids[request.request_id].add(order.order_id)
    assert {len(orders) for orders in ids.values()} == {1}
    assert len({order.order_id for order in answers}) == 100
    await asyncio.gather(*(one.final(order_id) for (order_id,) in ids.values()))
    for table, count in (("orders", 100), ("requests", 100), ("events", 600)):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == count  # noqa: S608
    assert Counter(c.payload.DESCRIPTOR.name for c in shop.commands) == dict.fromkeys(
        ("ReserveStock", "AuthorizePayment", "CommitStock", "CapturePayment"), 100
    )


async def test_bad_requests_are_told_everything_that_is_wrong(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    shop.catalog.sells("PEN", currency="EUR")
    replica = await shop.open()

    async def violations(method: str, request: Message) -> list[str]:
        with pytest.raises(InvalidArgument) as raised:
            await replica.call(method, request)
        return [violation.field for violation in raised.value.violations]

    bad = place_request(("", 1), ("MUG", 0), ("MUG", -1), ("M\0G", 1_000_001), request_id="7", payment_token="t" * 201)
    assert set(await violations("PlaceOrder", bad)) == {
        "request_id",
        "payment_token",
        "lines[0].sku",
        "lines[1].quantity",
        "lines[2].quantity",
        "lines[3].sku",
        "lines[3].quantity",
    }
    assert await violations("PlaceOrder", pb.PlaceOrderRequest()) == ["request_id", "lines", "payment_token"]
    assert await violations("PlaceOrder", place_request(*[("MUG", 1)] * 1001)) == ["lines"]
    unknown = place_request(("GONE", 1), ("MUG", 1), ("LOST", 1), ("PEN", 1))
    assert await violations("PlaceOrder", unknown) == ["lines[0].sku", "lines[2].sku", "lines[3].sku"]
    for method in ("GetOrder", "GetOrderHistory", "CancelOrder"):
        request = getattr(pb, f"{method}Request")
        assert await violations(method, request(order_id="x")) == ["order_id"]
        with pytest.raises(NotFound):
            await replica.call(method, request(order_id=str(uuid4())))
    for wrong in ({"page_token": "x"}, {"page_size": -1}, {"status": 77}):
        assert await violations("ListOrders", pb.ListOrdersRequest(**wrong)) == list(wrong)
    everything = pb.ListOrdersRequest(customer_id="a\0", status=99, page_size=-1, page_token="x")
    assert await violations("ListOrders", everything) == ["customer_id", "status", "page_size", "page_token"]


async def test_lists_come_in_pages(shop: Shop) -> None:
    shop.catalog.sells("MUG")
    replica = await shop.open()
    placed = [(await replica.place(("MUG", 1), customer_id="alice")).order_id for _ in range(5)]
    request = pb.ListOrdersRequest(page_size=2, customer_id="alice")
    pages: list[list[str]] = []
    while not pages or request.page_token:
        page = await replica.call("ListOrders", request)
        pages.append([order.order_id for order in page.orders])
        assert not any(order.lines for order in page.orders)
        request.page_token = page.next_page_token
    assert pages == [placed[:2:-1], placed[2:0:-1], placed[:1]]
    first = await replica.call("ListOrders", pb.ListOrdersRequest(page_size=2, customer_id="alice"))
    with pytest.raises(InvalidArgument):
        await replica.call("ListOrders", pb.ListOrdersRequest(customer_id="bob", page_token=first.next_page_token))


async def test_a_thousand_lines(shop: Shop) -> None:
    for n in range(500):
        shop.catalog.sells(f"SKU-{n}", "1.25")
    replica = await shop.open()
    order = await replica.place(*((f"SKU-{n % 500}", 1) for n in range(1000)))
    assert (order.total.units, len(order.lines)) == (1250, 1000)
    assert (await replica.final(order.order_id)).status == CONFIRMED
    (reserve,) = [c.payload for c in shop.commands if isinstance(c.payload, stock.ReserveStock)]
    assert {line.quantity for line in reserve.lines} == {2}
