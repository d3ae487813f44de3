"""Orders through all services: what can go right and wrong without anything breaking."""

import asyncio
from collections import Counter
from uuid import uuid4

import grpc
import pytest
from polymart.notification.v1.notification_pb2 import NOTIFICATION_STATUS_PROCESSED, NotificationKind
from polymart.notification.v1.notification_service_pb2 import ListNotificationsRequest
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.order.v1.order_pb2 import (
    ORDER_STATUS_CONFIRMED,
    ORDER_STATUS_PARTLY_SHIPPED,
    ORDER_STATUS_PENDING,
    ORDER_STATUS_RETURNED,
    OrderUnits,
)
from polymart.payment.v1.payment_pb2 import PAYMENT_STATUS_CAPTURED, PAYMENT_STATUS_VOIDED, REFUND_STATUS_DONE
from polymart.payment.v1.payment_service_pb2 import GetPaymentRequest, RefundPaymentRequest

from chassis.money import Money
from ops.audit.stores import open_stores
from ops.clients import follow
from ops.orders import reason_name
from tests.e2e.shop import TIMEOUT, Shop, until


async def test_an_order_is_confirmed_delivered_paid_and_its_customer_told(shop: Shop) -> None:
    (tracked,), (postage,) = await shop.product(price="2.55", stock=10), await shop.product(price="18.00", stock=None)
    customer = await shop.customer()
    placed = await shop.place(tracked, tracked, postage, quantity=2, customer=customer)
    assert placed.status == ORDER_STATUS_PENDING
    assert str(Money.from_proto(placed.total)) == "46.20 GBP"
    done = await shop.settled(placed)
    assert done.status == ORDER_STATUS_CONFIRMED
    level = await shop.stock(tracked)
    assert (level.on_hand, level.reserved, level.available) == (6, 0, 6)
    payment = await shop.clients.payments.GetPayment(GetPaymentRequest(payment_id=done.order_id), timeout=TIMEOUT)
    assert payment.status == PAYMENT_STATUS_CAPTURED
    assert payment.amount == placed.total

    async def told() -> object:
        request = ListNotificationsRequest(order_id=done.order_id, status=NOTIFICATION_STATUS_PROCESSED)
        return (await shop.clients.notifications.ListNotifications(request, timeout=TIMEOUT)).notifications

    (notification,) = await until(told, "the notification")
    mails = [m.read_text() for m in shop.stack.mailbox.glob("*.eml") if done.order_id in m.read_text()]
    assert len(mails) == 1
    assert notification.message_id in mails[0]
    assert "46.20" in mails[0]
    await shop.invariants_hold()


async def test_a_watch_tells_every_change_until_nothing_is_left_to_do(shop: Shop) -> None:
    (sku,) = await shop.product()
    placed = await shop.place(sku)
    request = ordering.WatchOrderRequest(order_id=placed.order_id)
    seen = [order async for order in shop.clients.orders.WatchOrder(request, timeout=30)]
    versions = [order.version for order in seen]
    assert versions == sorted(set(versions))
    assert seen[-1].settled
    history = await shop.clients.orders.GetOrderHistory(
        ordering.GetOrderHistoryRequest(order_id=placed.order_id), timeout=TIMEOUT
    )
    assert [entry.version for entry in history.entries] == list(range(1, seen[-1].version + 1))


async def test_a_declined_payment_gives_the_stock_back(shop: Shop) -> None:
    (sku,) = await shop.product(stock=3)
    assert await shop.outcome(await shop.place(sku, token="tok_declined")) == "PAYMENT_DECLINED"
    level = await shop.stock(sku)
    assert (level.on_hand, level.reserved) == (3, 0)
    await shop.invariants_hold()


async def test_an_order_short_of_one_line_reserves_none(shop: Shop) -> None:
    (plenty,), (few,) = await shop.product(stock=100), await shop.product(stock=1)
    order = await shop.settled(await shop.place(plenty, few, quantity=2))
    assert few in order.failure.message
    assert (await shop.stock(plenty)).reserved == 0
    assert (await shop.stock(few)).on_hand == 1
    await shop.invariants_hold()


@pytest.mark.parametrize("token", ["tok_timeout_once", "tok_late"])
async def test_a_payment_that_times_out_is_charged_once(shop: Shop, token: str) -> None:
    (sku,) = await shop.product()
    assert await shop.outcome(await shop.place(sku, token=token)) == "CONFIRMED"
    await shop.invariants_hold()


@pytest.mark.parametrize(
    ("token", "reason"), [("tok_capture_refused", "the card is blocked"), ("tok_expires", "the authorisation expired")]
)
async def test_a_capture_refused_for_good_cancels_the_order_and_puts_the_units_back(
    shop: Shop, token: str, reason: str
) -> None:
    (sku,) = await shop.product(stock=5)
    order = await shop.settled(await shop.place(sku, quantity=2, token=token))
    assert (reason_name(order), order.failure.message) == ("CAPTURE_FAILED", reason)
    level = await shop.stock(sku)
    assert (level.on_hand, level.reserved) == (5, 0)
    payment = await shop.clients.payments.GetPayment(GetPaymentRequest(payment_id=order.order_id), timeout=TIMEOUT)
    assert payment.status == PAYMENT_STATUS_VOIDED
    await shop.invariants_hold()


async def test_an_operator_refunds_a_part_and_all_books_agree(shop: Shop) -> None:
    (sku,) = await shop.product(price="10.00")
    order = await shop.settled(await shop.place(sku))
    request = RefundPaymentRequest(
        request_id=str(uuid4()), payment_id=order.order_id, amount=Money.parse("GBP", "2.50").to_proto()
    )
    for _ in range(2):
        await shop.clients.payments.RefundPayment(request, timeout=TIMEOUT)

    async def refunded() -> object:
        payment = await shop.clients.payments.GetPayment(GetPaymentRequest(payment_id=order.order_id), timeout=TIMEOUT)
        return payment.refunds[0].status == REFUND_STATUS_DONE and payment

    payment = await until(refunded, "the refund")
    assert (payment.refunded, len(payment.refunds)) == (request.amount, 1)
    await shop.invariants_hold()


async def test_the_same_request_twice_is_one_order_and_another_body_is_refused(shop: Shop) -> None:
    (sku,) = await shop.product(stock=10)
    request_id = str(uuid4())
    orders = await asyncio.gather(*(shop.place(sku, request_id=request_id) for _ in range(5)))
    assert len({order.order_id for order in orders}) == 1
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.place(sku, quantity=2, request_id=request_id)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    await shop.settled(orders[0])
    assert (await shop.stock(sku)).on_hand == 9
    await shop.invariants_hold()


async def test_a_hundred_buyers_for_one_unit_make_one_sale(shop: Shop) -> None:
    (sku,) = await shop.product(stock=1)
    orders = await asyncio.gather(*(shop.place(sku) for _ in range(100)))
    outcomes = await asyncio.gather(*(shop.outcome(order) for order in orders))
    assert sorted(outcomes) == ["CONFIRMED", *["OUT_OF_STOCK"] * 99]
    assert (await shop.stock(sku)).on_hand == 0
    await shop.invariants_hold()
    ids = [order.order_id for order in orders]
    async with open_stores(shop.stack.info()) as stores:
        held = "SELECT sum(reserved) FROM stock WHERE sku = $1"
        assert await stores.inventory.fetchval(held, sku) == 0
        paid = "SELECT status, amount - refunded AS kept FROM payments WHERE payment_id = ANY ($1::text[])"
        payments = [tuple(row) for row in await stores.payments.fetch(paid, ids)]
        assert [p for p in payments if p[0] != "VOIDED"] == [("CAPTURED", 10 * 10**9)]
        held = "SELECT sum(amount) FROM entries WHERE payment_id = ANY ($1::text[]) AND account = 'HOLDS'"
        assert not await stores.payments.fetchval(held, ids)


async def test_a_watch_goes_on_where_it_was_when_the_service_was_killed(shop: Shop) -> None:
    (sku,) = await shop.product()
    await shop.stack.stop_service("payment_svc")
    seen: list[int] = []
    try:
        placed = await shop.place(sku)

        async def reserved() -> bool:
            return bool(seen) and seen[-1] == 2

        async def watch() -> None:
            async for order in follow(shop.clients, placed.order_id, patience=60):
                seen.append(order.version)

        watching = asyncio.create_task(watch())
        await until(reserved, "the units to be reserved")
        await shop.stack.kill_service("order_svc")
        await shop.stack.restart_service("order_svc")
    finally:
        await shop.stack.restart_service("payment_svc")
    await asyncio.wait_for(watching, 60)
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert (await shop.settled(placed)).version == seen[-1]
    await shop.invariants_hold()


async def test_an_order_can_be_cancelled_until_it_is_shipped(shop: Shop) -> None:
    (sku,) = await shop.product(stock=10)
    cancelled = await shop.settled(await shop.place(sku, quantity=2, customer=await shop.customer()))
    request = ordering.CancelOrderRequest(order_id=cancelled.order_id, operator="bob", reason="no van")
    await shop.clients.orders.CancelOrder(request, timeout=TIMEOUT)
    assert await shop.outcome(cancelled) == "CANCELLED_BY_OPERATOR"
    await shop.stack.stop_service("payment_svc")
    try:
        waiting = await shop.place(sku)
        request = ordering.CancelOrderRequest(order_id=waiting.order_id)
        await shop.clients.orders.CancelOrder(request, timeout=TIMEOUT)
    finally:
        await shop.stack.restart_service("payment_svc")
    assert await shop.outcome(waiting) == "CANCELLED_BY_CUSTOMER"
    shipped = await shop.settled(await shop.place(sku))
    await shop.ship(shipped)
    request = ordering.CancelOrderRequest(order_id=shipped.order_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await shop.clients.orders.CancelOrder(request, timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    level = await shop.stock(sku)
    assert (level.on_hand, level.reserved) == (9, 0)
    await shop.invariants_hold()


async def test_an_order_lives_its_whole_life_and_all_books_agree_while_its_services_are_killed(shop: Shop) -> None:
    (mug,), (postage,) = await shop.product(price="2.55", stock=20), await shop.product(price="1.00", stock=None)
    customer = await shop.customer()
    placed = await shop.settled(await shop.place(mug, postage, quantity=5, customer=customer))
    request = ordering.CancelOrderRequest(
        order_id=placed.order_id,
        request_id=str(uuid4()),
        lines=[OrderUnits(line_number=1, quantity=1), OrderUnits(line_number=2, quantity=3)],
    )
    await shop.clients.orders.CancelOrder(request, timeout=TIMEOUT)
    for service in ("payment_svc", "inventory_svc", "order_svc"):
        await shop.stack.kill_service(service)
        await shop.stack.restart_service(service)
    await shop.clients.orders.CancelOrder(request, timeout=TIMEOUT, wait_for_ready=True)
    order = await shop.settled(placed)
    assert str(Money.from_proto(order.refunded)) == "5.55 GBP"
    assert (await shop.stock(mug)).on_hand == 16

    parcel = await shop.ship(order, OrderUnits(line_number=1, quantity=3))
    await shop.delivered(parcel)
    back = ordering.ReturnOrderLinesRequest(
        order_id=order.order_id,
        request_id=str(uuid4()),
        lines=[OrderUnits(line_number=1, quantity=2)],
        restock=True,
        operator="bob",
    )
    for _ in range(2):
        await shop.clients.orders.ReturnOrderLines(back, timeout=TIMEOUT)
        for service in ("inventory_svc", "payment_svc"):
            await shop.stack.kill_service(service)
            await shop.stack.restart_service(service)
    order = await shop.settled(order)
    assert (str(Money.from_proto(order.refunded)), order.status) == ("10.65 GBP", ORDER_STATUS_PARTLY_SHIPPED)
    assert (await shop.stock(mug)).on_hand == 18
    await shop.delivered(await shop.ship(order))
    back = ordering.ReturnOrderLinesRequest(order_id=order.order_id, request_id=str(uuid4()), operator="bob")
    await shop.clients.orders.ReturnOrderLines(back, timeout=TIMEOUT)
    order = await shop.settled(order)
    assert (order.status, order.refunded) == (ORDER_STATUS_RETURNED, order.total)
    assert (await shop.stock(mug)).on_hand == 18

    async def told() -> object:
        request = ListNotificationsRequest(order_id=order.order_id, status=NOTIFICATION_STATUS_PROCESSED)
        found = (await shop.clients.notifications.ListNotifications(request, timeout=TIMEOUT)).notifications
        kinds = Counter(NotificationKind.Name(one.kind).removeprefix("NOTIFICATION_KIND_ORDER_") for one in found)
        return kinds == {"CONFIRMED": 1, "SHIPPED": 2, "DELIVERED": 2, "REFUNDED": 3}

    await until(told, "all that the customer is told")
    await shop.invariants_hold()
