"""The domain's values as protobuf: what the stored events and the service's answers have in common."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from polymart.order.v1 import order_pb2 as pb
from polymart.order.v1.shipment_pb2 import Shipment as ShipmentMessage

from chassis.money import Money
from order_svc.domain.fulfilment import Shipment, Units
from order_svc.domain.order import Failure, FailureReason, Line, Order, Status
from order_svc.domain.totals import Destination, Totals

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
            tax=line.tax.to_proto() if line.tax else None,
            tax_rate_millionths=line.tax_rate,
        )
        for line in lines
    ]


def lines_from_proto(lines: Iterable[pb.OrderLine]) -> tuple[Line, ...]:
    return tuple(map(_line_from_proto, lines))


def _line_from_proto(line: pb.OrderLine) -> Line:
    unit_price, net = Money.from_proto(line.unit_price), Money.from_proto(line.line_total)
    return Line(
        line.sku,
        line.quantity,
        unit_price,
        line.product_id,
        line.product_name,
        line.untracked,
        net if net != unit_price * line.quantity else None,
        Money.from_proto(line.tax) if line.HasField("tax") else None,
        line.tax_rate_millionths,
    )


def totals_to_proto(totals: Totals) -> pb.OrderTotals:
    return pb.OrderTotals(
        net=totals.net.to_proto(),
        tax=totals.tax.to_proto(),
        shipping=totals.shipping.to_proto(),
        shipping_tax=totals.shipping_tax.to_proto(),
    )


def destination_to_proto(destination: Destination | None) -> pb.Destination | None:
    if destination is None:
        return None
    return pb.Destination(country_code=destination.country, region_code=destination.region)


def destination_from_proto(message: Any) -> Destination | None:
    """The `destination` of a message that may have one."""
    if not message.HasField("destination"):
        return None
    return Destination(message.destination.country_code, message.destination.region_code)


def failure_to_proto(failure: Failure) -> pb.OrderFailure:
    return pb.OrderFailure(reason=_REASON[failure.reason], message=failure.message)


def failure_from_proto(failure: pb.OrderFailure) -> Failure:
    return Failure(_REASON_OF[failure.reason], failure.message)


def units_to_proto(units: Iterable[Units]) -> list[pb.OrderUnits]:
    return [pb.OrderUnits(line_number=one.line + 1, quantity=one.quantity) for one in units]


def units_from_proto(units: Iterable[pb.OrderUnits]) -> tuple[Units, ...]:
    return tuple(Units(one.line_number - 1, one.quantity) for one in units)


def parts_to_proto(order: Order, units: Iterable[Units]) -> list[pb.OrderLine]:
    """The lines of these units, each as if no more had been ordered."""
    return lines_to_proto(order.lines[one.line].part(one.quantity) for one in units)


def shipment_to_proto(order_id: str, shipment: Shipment) -> ShipmentMessage:
    return ShipmentMessage(
        shipment_id=shipment.shipment_id,
        order_id=order_id,
        units=units_to_proto(shipment.units),
        carrier=shipment.carrier,
        tracking_number=shipment.tracking_number,
        ship_time=timestamp(shipment.ship_time),
        deliver_time=timestamp(shipment.deliver_time) if shipment.deliver_time else None,
    )


def order_to_proto(order: Order) -> pb.Order:
    lines = lines_to_proto(order.lines)
    if order.shipments or order.operations:
        counts = order.counts()
        for index, line in enumerate(lines):
            line.cancelled_quantity = counts.cancelled[index]
            line.shipped_quantity = counts.shipped[index]
            line.delivered_quantity = counts.delivered[index]
            line.returned_quantity = counts.returned[index]
    return pb.Order(
        order_id=order.order_id,
        customer_id=order.customer_id,
        status=STATUS[order.status],
        lines=lines,
        total=order.total.to_proto(),
        totals=totals_to_proto(order.totals),
        destination=destination_to_proto(order.destination),
        failure=failure_to_proto(order.failure) if order.failure else None,
        settled=order.settled,
        place_time=timestamp(order.place_time),
        update_time=timestamp(order.update_time),
        deadline=timestamp(order.deadline),
        version=order.version,
        refunded=order.refunded.to_proto() if order.refunds else None,
    )
