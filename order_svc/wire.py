"""The domain's values as protobuf: what the stored events and the service's answers have in common."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from polymart.order.v1 import order_pb2 as pb

from chassis.money import Money
from order_svc.domain.order import Failure, FailureReason, Line, Order, Status

STATUS = {status: pb.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in Status}
_REASON = {reason: pb.OrderFailureReason.Value(f"ORDER_FAILURE_REASON_{reason}") for reason in FailureReason}
_REASON_OF = {number: reason for reason, number in _REASON.items()}


def timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def lines_to_proto(lines: Iterable[Line]) -> list[pb.OrderLine]:
    return [
        pb.OrderLine(
            sku=line.sku,
            quantity=line.quantity,
            unit_price=line.unit_price.to_proto(),
            line_total=line.total.to_proto(),
            product_name=line.product_name,
            product_id=line.product_id,
            untracked=line.untracked,
        )
        for line in lines
    ]


def lines_from_proto(lines: Iterable[pb.OrderLine]) -> tuple[Line, ...]:
    return tuple(
        Line(
            line.sku,
            line.quantity,
            Money.from_proto(line.unit_price),
            line.product_id,
            line.product_name,
            line.untracked,
        )
        for line in lines
    )


def failure_to_proto(failure: Failure) -> pb.OrderFailure:
    return pb.OrderFailure(reason=_REASON[failure.reason], message=failure.message)


def failure_from_proto(failure: pb.OrderFailure) -> Failure:
    return Failure(_REASON_OF[failure.reason], failure.message)


def order_to_proto(order: Order) -> pb.Order:
    return pb.Order(
        order_id=order.order_id,
        customer_id=order.customer_id,
        status=STATUS[order.status],
        lines=lines_to_proto(order.lines),
        total=order.total.to_proto(),
        failure=failure_to_proto(order.failure) if order.failure else None,
        settled=order.settled,
        place_time=timestamp(order.place_time),
        update_time=timestamp(order.update_time),
        deadline=timestamp(order.deadline),
        version=order.version,
    )
