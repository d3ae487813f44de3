"""The calls of OrderService that change an order after it was placed, and those of its operators."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
from polymart.order.v1 import order_pb2, order_service_pb2_grpc
from polymart.order.v1 import order_service_pb2 as pb

from chassis.clock import Clock
from chassis.ids import NewId
from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator
from order_svc.application.ports import ReadableOrders, ReadModel
from order_svc.domain import messages as m
from order_svc.domain.order import Order
from order_svc.domain.saga import needs_operator, open_tasks
from order_svc.entrypoints.checks import LONGEST_ID, LONGEST_REASON, check_text, check_units
from order_svc.wire import order_to_proto, units_from_proto

Context = grpc.aio.ServicerContext[object, object]
ChangeOrder = Callable[[str, m.Request], Awaitable[Order]]

_STUCK_AFTER = 300
_LONGEST_WAIT = 10**9


class OrderChanges(order_service_pb2_grpc.OrderServiceServicer):
    """A part of the servicer. `change` does what is asked of an order and returns it."""

    def __init__(self, change: ChangeOrder, orders: ReadableOrders, read_model: ReadModel, clock: Clock, new_id: NewId):
        self._change = change
        self._read_model = read_model
        self._reading = orders
        self._now = clock.now
        self._new = new_id

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> order_pb2.Order:
        check = Validator(request)
        check_units(check, request.lines)
        check_text(check, request.reason, "reason", LONGEST_REASON)
        check_text(check, request.operator, "operator", LONGEST_ID)
        check.check(not request.lines or bool(request.request_id), "request_id", "is required with lines")
        check.check(not request.operator or bool(request.reason), "reason", "is required of an operator")
        check.done()
        asked = m.CancelRequested(
            by=request.operator,
            reason=request.reason,
            request_id=request.request_id or self._new(),
            units=units_from_proto(request.lines),
            by_operator=bool(request.operator),
        )
        return order_to_proto(await self._change(request.order_id, asked))

    async def ReturnOrderLines(self, request: pb.ReturnOrderLinesRequest, context: Context) -> order_pb2.Order:
        check = Validator(request)
        check_units(check, request.lines)
        check_text(check, request.reason, "reason", LONGEST_REASON)
        check_text(check, request.operator, "operator", LONGEST_ID)
        check.done()
        asked = m.ReturnRequested(
            request_id=request.request_id,
            by=request.operator,
            restock=request.restock,
            units=units_from_proto(request.lines),
            reason=request.reason,
        )
        return order_to_proto(await self._change(request.order_id, asked))

    async def RetryOrder(self, request: pb.RetryOrderRequest, context: Context) -> order_pb2.Order:
        check = Validator(request)
        check_text(check, request.reason, "reason", LONGEST_REASON)
        check_text(check, request.operator, "operator", LONGEST_ID)
        check.done()
        asked = m.RetryRequested(request.operator, request.reason)
        return order_to_proto(await self._change(request.order_id, asked))

    async def ListStuckOrders(self, request: pb.ListStuckOrdersRequest, context: Context) -> pb.ListStuckOrdersResponse:
        check = Validator(request)
        ok = 0 <= request.waiting_seconds <= _LONGEST_WAIT
        check.check(ok, "waiting_seconds", f"must be between 0 and {_LONGEST_WAIT}")
        size, after = asked_page(request, check, _position)
        check.done()
        now = self._now()
        since = now - timedelta(seconds=request.waiting_seconds or _STUCK_AFTER)
        orders = await self._reading.stuck(since, now, after=after, limit=size + 1)
        token = ""
        if len(orders) > size:
            last = orders[size - 1]
            position = {"time": last.update_time.isoformat(), "after": last.order_id}
            token = PageToken.encode(position, fingerprint(request))
        stuck = [pb.StuckOrder(order=order_to_proto(order), waits=_waits(order)) for order in orders[:size]]
        return pb.ListStuckOrdersResponse(orders=stuck, next_page_token=token)

    async def RebuildReadModel(
        self, request: pb.RebuildReadModelRequest, context: Context
    ) -> pb.RebuildReadModelResponse:
        rebuilt = await self._read_model.rebuild(swap=not request.validate_only)
        return pb.RebuildReadModelResponse(
            order_count=rebuilt.orders, difference_count=rebuilt.difference_count, differences=rebuilt.differences
        )


def _waits(order: Order) -> list[pb.OrderWait]:
    waits = [
        pb.OrderWait(
            step=task.step.name,
            command=type(task.command()).__name__,
            operation_id=task.operation_id,
        )
        for task in open_tasks(order)
    ]
    failed = [
        pb.OrderWait(step="refund", operation_id=one.refund_id, failure=one.failure) for one in needs_operator(order)
    ]
    return waits + failed


def _position(token: Position) -> tuple[datetime, str]:
    return datetime.fromisoformat(str(token["time"])).astimezone(UTC), str(UUID(str(token["after"])))
