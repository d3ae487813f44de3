"""OrderService: requests checked and mapped to the use cases, orders mapped back."""

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from polymart.order.v1 import order_pb2, order_service_pb2_grpc
from polymart.order.v1 import order_service_pb2 as pb

from chassis.clock import Clock
from chassis.ids import NewId, printable
from chassis.messaging.envelope import Envelope
from chassis.postgres import Transaction
from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator
from order_svc.application.advancing import cancel_order
from order_svc.application.placing import PlaceOrder, place_order
from order_svc.application.ports import (
    Catalog,
    ChangeableOrders,
    Filter,
    OrderSummary,
    PlacedOrders,
    PriceList,
    ReadableOrders,
    Request,
)
from order_svc.application.watching import OrderWatch
from order_svc.domain.pricing import Wanted
from order_svc.wire import STATUS, failure_to_proto, order_to_proto, timestamp

_MOST_LINES = 1_000
_MOST_UNITS = 1_000_000
_LONGEST_ID = 128
_LONGEST_TOKEN = 200
_STATUS_OF = {number: status for status, number in STATUS.items()}

Context = grpc.aio.ServicerContext[object, object]


class Orders(PlacedOrders, ReadableOrders, ChangeableOrders[Transaction, Envelope], Protocol):
    """All that the servicer needs of the store."""


class OrderServicer(order_service_pb2_grpc.OrderServiceServicer):
    def __init__(
        self,
        *,
        orders: Orders,
        prices: PriceList,
        catalog: Catalog,
        watch: OrderWatch,
        clock: Clock,
        new_id: NewId,
        patience: timedelta,
    ):
        self._orders = orders
        self._prices = prices
        self._catalog = catalog
        self._watch = watch
        self._clock = clock
        self._new_id = new_id
        self._patience = patience

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: Context) -> order_pb2.Order:
        _check_place(request)
        command = PlaceOrder(
            Request(request.customer_id, request.request_id, _fingerprint(request)),
            tuple(Wanted(line.sku, line.quantity) for line in request.lines),
            request.payment_token,
        )
        order = await place_order(
            command,
            orders=self._orders,
            prices=self._prices,
            catalog=self._catalog,
            clock=self._clock,
            new_id=self._new_id,
            patience=self._patience,
        )
        return order_to_proto(order)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> order_pb2.Order:
        Validator(request).done()
        return order_to_proto(await self._orders.get(request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        check = Validator(request)
        _check_text(check, request.customer_id, "customer_id", _LONGEST_ID)
        check.check(not request.status or request.status in _STATUS_OF, "status", "is no status of an order")
        size, before = asked_page(request, check, _position)
        check.done()
        which = Filter(request.customer_id or None, _STATUS_OF[request.status] if request.status else None)
        orders = await self._orders.page(which, before=before, limit=size + 1)
        token = ""
        if len(orders) > size:
            token = PageToken.encode({"before": orders[size - 1].order_id}, fingerprint(request))
        return pb.ListOrdersResponse(orders=map(_summary_to_proto, orders[:size]), next_page_token=token)

    async def GetOrderHistory(self, request: pb.GetOrderHistoryRequest, context: Context) -> pb.GetOrderHistoryResponse:
        Validator(request).done()
        return pb.GetOrderHistoryResponse(
            entries=[
                pb.OrderHistoryEntry(
                    version=entry.version,
                    time=timestamp(entry.time),
                    event=AnyMessage(type_url=f"type.googleapis.com/{entry.type}", value=entry.data),
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

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> order_pb2.Order:
        Validator(request).done()
        return order_to_proto(await cancel_order(request.order_id, orders=self._orders, clock=self._clock))


def _check_place(request: pb.PlaceOrderRequest) -> None:
    check = Validator(request)
    _check_text(check, request.customer_id, "customer_id", _LONGEST_ID)
    _check_text(check, request.payment_token, "payment_token", _LONGEST_TOKEN)
    check.check(len(request.lines) <= _MOST_LINES, "lines", f"must be at most {_MOST_LINES}")
    for index, line in enumerate(request.lines):
        _check_text(check, line.sku, f"lines[{index}].sku", _LONGEST_ID)
        check.check(
            0 <= line.quantity <= _MOST_UNITS,
            f"lines[{index}].quantity",
            f"must be between 1 and {_MOST_UNITS}",
        )
    check.done()


def _position(token: Position) -> str:
    return str(UUID(str(token["before"])))


def _check_text(check: Validator, text: str, field: str, longest: int) -> None:
    ok = len(text) <= longest and printable(text)
    check.check(ok, field, f"must be at most {longest} printable characters")


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
    )
