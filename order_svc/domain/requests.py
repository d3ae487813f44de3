"""What people ask of an order, and what follows: an event, nothing if it was done before, or the refusal."""

from collections import Counter
from collections.abc import Mapping

from chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Violation
from order_svc.domain import messages as m
from order_svc.domain.fulfilment import Kind, Operation, Shipment, Units, as_units, total
from order_svc.domain.order import (
    Event,
    Failure,
    FailureReason,
    Holding,
    Order,
    OrderCancelled,
    OrderDelivered,
    OrderLinesCancelled,
    OrderLinesReturned,
    OrderShipped,
    Status,
)
from order_svc.domain.refunds import refund_of

_NAMED = 10


def cancel(order: Order, asked: m.CancelRequested) -> Event | None:
    """Raises FailedPrecondition for what is shipped, and for a part of an order that isn't confirmed."""
    if order.status in (Status.REJECTED, Status.CANCELLED) or _done(order, Kind.CANCELLATION, asked):
        return None
    counts = order.counts()
    units = _wanted(order, asked.units, counts.unshipped, "left to call off", reason="ORDER_SHIPPED")
    if not counts.shipped and not counts.unshipped - total(units):
        reason = FailureReason.CANCELLED_BY_OPERATOR if asked.by_operator else FailureReason.CANCELLED_BY_CUSTOMER
        by = "an operator" if asked.by_operator else "the customer"
        return OrderCancelled(Failure(reason, asked.reason or f"cancelled by {by}"), asked.by, asked.request_id)
    if order.status is Status.PENDING:
        message = f"order {order.order_id} isn't confirmed yet: it can only be called off whole"
        raise FailedPrecondition(message, reason="ORDER_NOT_CONFIRMED")
    return OrderLinesCancelled(asked.request_id, units, refund_of(order, units), asked.by, asked.reason)


def ship(order: Order, asked: m.ShipmentRequested) -> Event | None:
    """Raises FailedPrecondition unless stock is taken and payment collected, and for more than is left to ship."""
    _refuse_other_use(order, asked.request_id, Kind.CANCELLATION, Kind.RETURN)
    if known := shipment_by(order, asked.request_id):
        same = asked.units in ((), known.units) or total(asked.units) == total(known.units)
        if not same or (asked.carrier, asked.tracking_number) != (known.carrier, known.tracking_number):
            raise _reused(asked.request_id)
        return None
    taken = order.stock is Holding.TAKEN or not order.stock_wanted()
    failed = order.status in (Status.REJECTED, Status.CANCELLED)
    if failed or not taken or order.payment is not Holding.TAKEN:
        raise _not_shippable(order)
    units = _wanted(order, asked.units, order.counts().unshipped, "left to ship", reason="UNITS_EXCEED_ORDER")
    return OrderShipped(asked.shipment_id, asked.request_id, units, asked.carrier, asked.tracking_number, asked.by)


def deliver(order: Order, asked: m.DeliveryReported) -> Event | None:
    if order.shipment(asked.shipment_id).deliver_time:
        return None
    return OrderDelivered(asked.shipment_id, asked.by)


def take_back(order: Order, asked: m.ReturnRequested) -> Event | None:
    """Raises FailedPrecondition for more than was delivered and isn't returned."""
    if known := _done(order, Kind.RETURN, asked):
        if bool(known.restock) != (asked.restock and bool(order.tracked(known.units))):
            raise _reused(asked.request_id)
        return None
    left = order.counts().returnable
    units = _wanted(order, asked.units, left, "delivered that could come back", reason="RETURN_EXCEEDS_ORDER")
    refund = refund_of(order, units)
    return OrderLinesReturned(asked.request_id, units, refund, asked.restock, asked.by, asked.reason)


def shipment_by(order: Order, request_id: str) -> Shipment | None:
    """The shipment that a request made."""
    return next((shipment for shipment in order.shipments if shipment.request_id == request_id), None)


def _done(order: Order, kind: Kind, asked: m.CancelRequested | m.ReturnRequested) -> Operation | None:
    """What the same request did before. Raises AlreadyExists if it did something else."""
    _refuse_other_use(order, asked.request_id, *(other for other in Kind if other is not kind))
    if shipment_by(order, asked.request_id):
        raise _reused(asked.request_id)
    known = next((o for o in order.operations if o.operation_id == asked.request_id), None)
    if known and asked.units and total(asked.units) != total(known.units):
        raise _reused(asked.request_id)
    return known


def _refuse_other_use(order: Order, request_id: str, *kinds: Kind) -> None:
    if any(o.operation_id == request_id and o.kind in kinds for o in order.operations):
        raise _reused(request_id)


def _reused(request_id: str) -> AlreadyExists:
    return AlreadyExists(f"request {request_id} did something else before", reason="REQUEST_ID_REUSED")


def _not_shippable(order: Order) -> FailedPrecondition:
    message = f"order {order.order_id} is {order.status}, and its stock isn't taken or its payment not collected"
    return FailedPrecondition(message, reason="ORDER_NOT_SETTLED")


def _wanted(
    order: Order, units: tuple[Units, ...], left: Mapping[int, int], what: str, *, reason: str
) -> tuple[Units, ...]:
    """The units asked for, or all that are `left` where none are.

    Raises InvalidArgument for lines that the order doesn't have, FailedPrecondition for more than is left.
    """
    unknown = [
        Violation(f"lines[{index}].line_number", f"the order has {len(order.lines)} lines")
        for index, one in enumerate(units)
        if not 0 <= one.line < len(order.lines)
    ]
    if unknown:
        raise InvalidArgument(unknown)
    counted = total(units) if units else Counter(left)
    more = [
        f"of line {line + 1} ({order.lines[line].sku}) {quantity} wanted, {left.get(line, 0)} left"
        for line, quantity in sorted(counted.items())
        if quantity > left.get(line, 0)
    ]
    if more or not any(counted.values()):
        named = "; ".join(more[:_NAMED]) or "nothing is"
        raise FailedPrecondition(f"order {order.order_id}: {named} {what}", reason=reason)
    return as_units(counted)
