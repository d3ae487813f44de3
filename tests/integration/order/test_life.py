"""What becomes of an order after its confirmation, over gRPC and NATS, with doubles for its peers."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage
from polymart.inventory.v1 import commands_pb2 as stock
from polymart.order.v1 import order_pb2
from polymart.order.v1 import order_service_pb2 as pb
from polymart.order.v1 import shipment_service_pb2 as shipping
from polymart.payment.v1 import commands_pb2 as payment
from polymart.payment.v1.events_pb2 import PaymentRefundFailed

from chassis.clock import ManualClock
from chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from chassis.money import Money
from chassis.postgres import Postgres
from order_svc.adapters.read_model import read_model_faults
from tests.conftest import until
from tests.integration.order.conftest import Replica, Shop, units_of

REFUSALS = FailedPrecondition, AlreadyExists, InvalidArgument, NotFound


def status(order: order_pb2.Order) -> str:
    name = order_pb2.OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
    return name if order.settled else f"{name}…"


def money(message: MoneyMessage) -> str:
    return str(Money.from_proto(message))


async def settled(replica: Replica, order_id: str) -> order_pb2.Order:
    async def done() -> bool:
        return (await replica.get(order_id)).settled

    await until(done)
    return await replica.get(order_id)


async def bought(shop: Shop, replica: Replica, **fields: Any) -> order_pb2.Order:
    """Three mugs at 2.50 and one postage at 4.00, settled."""
    shop.catalog.sells("MUG")
    shop.catalog.sells("POST", "4.00", untracked=True)
    placed = await replica.place(("MUG", 3), ("POST", 1), **{"customer_id": "alice", **fields})
    return await replica.final(placed.order_id)


async def refused(call: Any) -> str:
    with pytest.raises(REFUSALS) as raised:
        await call
    return str(raised.value.reason)


async def test_an_order_is_shipped_in_parts_delivered_and_returned(shop: Shop, db: Postgres) -> None:
    replica = await shop.open()
    order_id = (await bought(shop, replica)).order_id
    first = await replica.ship(order_id, (1, 2), carrier="Post", tracking_number="T-1")
    assert status(await replica.get(order_id)) == "PARTLY_SHIPPED"
    second = await replica.ship(order_id)
    assert list(second.units) == units_of((1, 1), (2, 1))
    assert status(await replica.get(order_id)) == "SHIPPED"
    assert await refused(replica.ship(order_id)) == "UNITS_EXCEED_ORDER"
    assert await refused(replica.take_back(order_id)) == "RETURN_EXCEEDS_ORDER"

    delivered = await replica.arrived(first.shipment_id)
    assert delivered.HasField("deliver_time")
    assert await replica.arrived(first.shipment_id) == delivered
    assert status(await replica.get(order_id)) == "SHIPPED"
    await replica.arrived(second.shipment_id)
    assert status(await replica.get(order_id)) == "DELIVERED"

    await replica.take_back(order_id, (1, 1), restock=True, reason="wrong colour")
    order = await settled(replica, order_id)
    assert (status(order), money(order.refunded)) == ("DELIVERED", "2.50 GBP")
    await replica.take_back(order_id, restock=False)
    order = await settled(replica, order_id)
    assert (status(order), order.refunded) == ("RETURNED", order.total)
    assert [line.returned_quantity for line in order.lines] == [3, 1]
    restocked = [c.payload for c in shop.commands if isinstance(c.payload, stock.RestockStock)]
    assert [list(payload.lines) for payload in restocked] == [[stock.ReservationLine(sku="MUG", quantity=1)]]
    assert await read_model_faults(db) == []


async def test_shipments_are_found_by_id_by_order_and_by_whether_they_are_under_way(shop: Shop) -> None:
    replica = await shop.open()
    orders = [await bought(shop, replica) for _ in range(2)]
    made = [await replica.ship(order.order_id, (1, 1)) for order in orders for _ in range(2)]
    arrived = await replica.arrived(made[0].shipment_id)

    async def listed(**fields: Any) -> list[str]:
        request, found = shipping.ListShipmentsRequest(page_size=2, **fields), list[str]()
        while True:
            page = await replica.call("ListShipments", request)
            found += [shipment.shipment_id for shipment in page.shipments]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    ids = [shipment.shipment_id for shipment in made][::-1]
    assert await listed() == ids
    assert await listed(under_way=True) == ids[:-1]
    assert await listed(order_id=orders[1].order_id) == ids[:2]
    assert await replica.call("GetShipment", shipping.GetShipmentRequest(shipment_id=ids[-1])) == arrived
    assert await refused(replica.call("GetShipment", shipping.GetShipmentRequest(shipment_id=str(uuid4())))) == (
        "NOT_FOUND"
    )


async def test_lines_called_off_before_shipment_are_refunded_and_put_back(shop: Shop, db: Postgres) -> None:
    replica = await shop.open()
    order_id = (await bought(shop, replica)).order_id
    request_id = str(uuid4())
    part = await replica.cancel(order_id, lines=units_of((1, 2)), request_id=request_id, reason="too many")
    assert status(part) == "CONFIRMED…"
    order = await settled(replica, order_id)
    assert (status(order), money(order.refunded), order.lines[0].cancelled_quantity) == ("CONFIRMED", "5.00 GBP", 2)
    again = await replica.cancel(order_id, lines=units_of((1, 2)), request_id=request_id)
    assert again == order
    assert sorted(shop.asked(order_id)[-2:]) == ["RefundPayment", "RestockStock"]
    assert await refused(replica.cancel(order_id, lines=units_of((1, 1)), request_id=request_id)) == (
        "REQUEST_ID_REUSED"
    )
    assert await refused(replica.cancel(order_id, lines=units_of((1, 2)), request_id=str(uuid4()))) == "ORDER_SHIPPED"
    assert await refused(replica.cancel(order_id, lines=units_of((9, 1), (1, 1)), request_id=str(uuid4()))) == (
        "INVALID_ARGUMENT"
    )
    assert list((await replica.ship(order_id)).units) == units_of((1, 1), (2, 1))
    assert status(await replica.get(order_id)) == "SHIPPED"
    assert await read_model_faults(db) == []


async def test_calling_off_all_that_is_left_calls_the_order_off(shop: Shop) -> None:
    replica = await shop.open()
    order_id = (await bought(shop, replica)).order_id
    await replica.cancel(order_id, lines=units_of((1, 3)), request_id=str(uuid4()))
    await settled(replica, order_id)
    await replica.cancel(order_id, lines=units_of((2, 1)), request_id=str(uuid4()), operator="bob", reason="no van")
    order = await settled(replica, order_id)
    assert (status(order), order.failure.message) == ("CANCELLED", "no van")
    assert order.failure.reason == order_pb2.ORDER_FAILURE_REASON_CANCELLED_BY_OPERATOR
    assert set(shop.asked(order_id)[-2:]) == {"ReleaseStock", "VoidPayment"}


async def test_an_order_ships_only_once_its_stock_is_taken_and_its_payment_collected(shop: Shop) -> None:
    replica = await shop.open()
    shop.answers[payment.CapturePayment] = lambda _: None
    shop.catalog.sells("MUG")
    order_id = (await replica.place(("MUG", 2))).order_id
    await until(lambda: "CapturePayment" in shop.asked(order_id))
    assert await refused(replica.ship(order_id)) == "ORDER_NOT_SETTLED"
    # Lines can be called off already: the refund waits for the capture.
    await replica.cancel(order_id, lines=units_of((1, 1)), request_id=str(uuid4()))
    assert "RefundPayment" not in shop.asked(order_id)


async def test_a_request_has_its_effect_once_however_often_and_where_it_comes(shop: Shop, db: Postgres) -> None:
    replicas = [await shop.open(), await shop.open()]
    order_id = (await bought(shop, replicas[0])).order_id

    async def ten_times(call: Any) -> list[Any]:
        return await asyncio.gather(*(call(replicas[n % 2]) for n in range(10)))

    request = {"request_id": str(uuid4())}
    parts = await ten_times(lambda r: r.cancel(order_id, lines=units_of((1, 1)), **request))
    assert {order.lines[0].cancelled_quantity for order in parts} == {1}
    await settled(replicas[0], order_id)
    request = {"request_id": str(uuid4())}
    (shipment_id,) = {s.shipment_id for s in await ten_times(lambda r: r.ship(order_id, **request))}
    await ten_times(lambda r: r.arrived(shipment_id))
    request = {"request_id": str(uuid4())}
    await ten_times(lambda r: r.take_back(order_id, (1, 1), **request))
    order = await settled(replicas[1], order_id)
    assert (status(order), money(order.refunded)) == ("DELIVERED", "5.00 GBP")
    assert shop.asked(order_id).count("RefundPayment") == 2
    # All answers come once more, after everything.
    for reply in list(shop.replies):
        await shop.publish(reply.payload, reply.aggregate_id)
    other = await bought(shop, replicas[0])
    assert (await replicas[1].get(order_id)).version == order.version
    assert status(other) == "CONFIRMED"
    assert await read_model_faults(db) == []


async def test_a_refund_that_fails_is_seen_and_tried_again_by_an_operator(shop: Shop, db: Postgres) -> None:
    clock = ManualClock(datetime.now(UTC))
    replica = await shop.open(clock=clock)
    order_id = (await bought(shop, replica)).order_id

    def fails(command: payment.RefundPayment) -> Message:
        failed = PaymentRefundFailed(payment_id=command.payment_id, operation_id=command.operation_id)
        failed.reason = "the card is gone"
        return failed

    answer, shop.answers[payment.RefundPayment] = shop.answers[payment.RefundPayment], fails
    request_id = str(uuid4())
    version = (await replica.cancel(order_id, lines=units_of((1, 1)), request_id=request_id)).version

    async def answered() -> bool:
        return (await replica.get(order_id)).version == version + 2

    await until(answered)

    async def stuck(seconds: int = 60) -> list[pb.StuckOrder]:
        page = await replica.call("ListStuckOrders", pb.ListStuckOrdersRequest(waiting_seconds=seconds))
        return list(page.orders)

    assert await stuck() == []
    clock.advance(timedelta(seconds=61))

    (found,) = await stuck()
    assert found.order.order_id == order_id
    (wait,) = found.waits
    assert (wait.step, wait.operation_id, wait.failure) == ("refund", request_id, "the card is gone")

    shop.answers[payment.RefundPayment] = answer
    retry = pb.RetryOrderRequest(order_id=order_id, operator="bob", reason="a new card")
    await replica.call("RetryOrder", retry)
    order = await settled(replica, order_id)
    assert (status(order), money(order.refunded)) == ("CONFIRMED", "2.50 GBP")
    assert await stuck() == []
    assert await refused(replica.call("RetryOrder", retry)) == "ORDER_SETTLED"
    ids = [c.payload.operation_id for c in shop.commands if isinstance(c.payload, payment.RefundPayment)]
    assert ids == [request_id, f"{request_id}.2"]
    assert await read_model_faults(db) == []


async def test_a_history_says_who_did_what_when_and_why(shop: Shop) -> None:
    replica = await shop.open()
    order_id = (await bought(shop, replica)).order_id
    await replica.arrived((await replica.ship(order_id)).shipment_id)
    await replica.take_back(order_id, (1, 1), reason="broken")
    await settled(replica, order_id)
    history = await replica.call("GetOrderHistory", pb.GetOrderHistoryRequest(order_id=order_id))
    told = [(e.event.TypeName().rpartition(".")[2], e.actor, e.cause.rpartition(".")[2]) for e in history.entries]
    assert told[0] == ("OrderPlaced", "alice", "PlaceOrder")
    assert ("OrderConfirmed", "test", "PaymentAuthorized") in told  # the double's name
    assert told[-5:] == [
        ("OrderShipped", "bob", "CreateShipment"),
        ("OrderDelivered", "bob", "MarkShipmentDelivered"),
        ("OrderLinesReturned", "bob", "ReturnOrderLines"),
        ("OrderRefunded", "test", "PaymentRefunded"),
        ("OrderSettled", "test", "PaymentRefunded"),
    ]
    replies = {reply.id for reply in shop.replies}
    assert {e.cause_id for e in history.entries if e.actor == "test"} <= replies


async def test_bad_requests_name_every_fault(shop: Shop) -> None:
    replica = await shop.open()
    with pytest.raises(InvalidArgument) as raised:
        await replica.cancel("x", lines=units_of((1, 1), (1, 0), (0, 1)), operator="bob")
    fields = {violation.field for violation in raised.value.violations}
    assert fields >= {"order_id", "lines[1].line_number", "lines[1].quantity", "lines[2].line_number", "reason"}
    assert "request_id" in fields
    with pytest.raises(InvalidArgument) as raised:
        await replica.call("CreateShipment", shipping.CreateShipmentRequest(carrier="x" * 101))
    assert {violation.field for violation in raised.value.violations} == {
        "order_id", "request_id", "operator", "carrier",
    }  # fmt: skip
