"""OrderService: requests checked and mapped to the use cases, orders mapped back."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from uuid import UUID

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from polymart.order.v1 import order_pb2
from polymart.order.v1 import order_service_pb2 as pb

from chassis.clock import Clock
from chassis.ids import NewId
from chassis.messaging.envelope import Envelope
from chassis.money import Money
from chassis.postgres import Transaction
from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator
from order_svc.application.advancing import change_order
from order_svc.application.placing import PlaceOrder, Terms, place_order
from order_svc.application.ports import (
    Catalog,
    ChangeableOrders,
    Filter,
    OrderSummary,
    PlacedOrders,
    PriceList,
    ReadableOrders,
    ReadModel,
    Request,
)
from order_svc.application.watching import OrderWatch
from order_svc.domain.pricing import Wanted
from order_svc.entrypoints.changes import OrderChanges
from order_svc.entrypoints.checks import (
    LONGEST_ID,
    LONGEST_TOKEN,
    check_destination,
    check_lines,
    check_text,
)
from order_svc.wire import STATUS, destination_from_proto, failure_to_proto, order_to_proto, timestamp

_STATUS_OF = {number: status for status, number in STATUS.items()}

Context = grpc.aio.ServicerContext[object, object]


class Orders(PlacedOrders, ReadableOrders, ChangeableOrders[Transaction, Envelope], Protocol):
    """All that the servicer needs of the store."""


class OrderServicer(OrderChanges):
    def __init__(
        self,
        *,
        orders: Orders,
        read_model: ReadModel,
        prices: PriceList,
        catalog: Catalog,
        watch: OrderWatch,
        clock: Clock,
        new_id: NewId,
        terms: Terms,
    ):
        super().__init__(partial(change_order, orders=orders, clock=clock), orders, read_model, clock, new_id)
        self._orders = orders
        self._prices = prices
        self._catalog = catalog
        self._watch = watch
        self._clock = clock
        self._new_id = new_id
        self._terms = terms

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: Context) -> order_pb2.Order:
        _check_place(request)
        command = PlaceOrder(
            Request(request.customer_id, str(UUID(request.request_id)), _fingerprint(request)),
            tuple(Wanted(line.sku, line.quantity, _expected(line)) for line in request.lines),
            request.payment_token,
            request.accept_price_changes,
            destination_from_proto(request),
        )
        order = await place_order(
            command,
            orders=self._orders,
            prices=self._prices,
            catalog=self._catalog,
            clock=self._clock,
            new_id=self._new_id,
            terms=self._terms,
        )
        return order_to_proto(order)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> order_pb2.Order:
        Validator(request).done()
        return order_to_proto(await self._orders.get(request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        check = Validator(request)
        check_text(check, request.customer_id, "customer_id", LONGEST_ID)
        check.check(not request.status or request.status in _STATUS_OF, "status", "is no status of an order")
        placed_from, placed_before = (_moment(request, f, check) for f in ("placed_from", "placed_before"))
        size, before = asked_page(request, check, _position)
        check.done()
        which = Filter(
            request.customer_id or None,
            _STATUS_OF[request.status] if request.status else None,
            placed_from,
            placed_before,
        )
        orders = await self._orders.page(which, before=before, limit=size + 1)
        token = ""
        if len(orders) > size:
            last = orders[size - 1]
            position = {"time": last.place_time.isoformat(), "before": last.order_id}
            token = PageToken.encode(position, fingerprint(request))
        return pb.ListOrdersResponse(orders=map(_summary_to_proto, orders[:size]), next_page_token=token)

    async def GetOrderHistory(self, request: pb.GetOrderHistoryRequest, context: Context) -> pb.GetOrderHistoryResponse:
        Validator(request).done()
        return pb.GetOrderHistoryResponse(
            entries=[
                pb.OrderHistoryEntry(
                    version=entry.version,
                    time=timestamp(entry.time),
                    event=AnyMessage(type_url=f"type.googleapis.com/{entry.type}", value=entry.data),
                    actor=entry.actor,
                    cause=entry.cause,
                    cause_id=entry.cause_id,
                )
                for entry in await self._orders.history(request.order_id)
            ]
        )

    async def WatchOrder(self, request: pb.WatchOrderRequest, context: Context) -> AsyncIterator[order_pb2.Order]:
        check = Validator(request)
        check.check(request.after_version >= 0, "after_version", "must not be negative")
        check.done()
        async for order in self._watch.watch(request.order_id, request.after_version):
            yield order_to_proto(order)


def _check_place(request: pb.PlaceOrderRequest) -> None:
    check = Validator(request)
    check_text(check, request.customer_id, "customer_id", LONGEST_ID)
    check_text(check, request.payment_token, "payment_token", LONGEST_TOKEN)
    check_destination(check, request.destination)
    check_lines(check, request.lines)
    for index, line in enumerate(request.lines):
        try:
            _expected(line)
        except ValueError as error:
            check.check(False, f"lines[{index}].expected_unit_price", str(error))
    check.done()


def _moment(request: pb.ListOrdersRequest, field: str, check: Validator) -> datetime | None:
    try:
        return getattr(request, field).ToDatetime(UTC) if request.HasField(field) else None  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        check.check(False, field, "must be a time between the years 1 and 9999")
        return None


def _expected(line: pb.PlaceOrderLine) -> Money | None:
    """Raises ValueError."""
    return Money.from_proto(line.expected_unit_price) if line.HasField("expected_unit_price") else None


def _position(token: Position) -> tuple[datetime, str]:
    return datetime.fromisoformat(str(token["time"])).astimezone(UTC), str(UUID(str(token["before"])))


def _fingerprint(request: pb.PlaceOrderRequest) -> bytes:
    """A hash of what the request says, whatever spelling its id has."""
    said = pb.PlaceOrderRequest()
    said.CopyFrom(request)
    said.ClearField("request_id")
    return hashlib.sha256(said.SerializeToString(deterministic=True)).digest()


def _summary_to_proto(order: OrderSummary) -> order_pb2.Order:
    return order_pb2.Order(
        order_id=order.order_id,
        customer_id=order.customer_id,
        status=STATUS[order.status],
        total=order.total.to_proto(),
        failure=failure_to_proto(order.failure) if order.failure else None,
        settled=order.settled,
        place_time=timestamp(order.place_time),
        update_time=timestamp(order.update_time),
        deadline=timestamp(order.deadline),
        version=order.version,
        refunded=order.refunded.to_proto() if order.refunded.nanos else None,
    )
