"""Events and commands as the protobuf messages they are stored and sent as."""

from collections.abc import Callable, Mapping
from datetime import UTC

from google.protobuf.message import DecodeError, Message
from polymart.inventory.v1 import commands_pb2 as stock
from polymart.order.v1 import events_pb2 as pb
from polymart.order.v1 import order_pb2
from polymart.payment.v1 import commands_pb2 as payment

from chassis.messaging.topology import TOPOLOGY
from chassis.money import Money
from order_svc.domain import messages as m
from order_svc.domain import order as o
from order_svc.domain.totals import Shipping, Totals
from order_svc.wire import (
    STATUS,
    destination_from_proto,
    destination_to_proto,
    failure_from_proto,
    failure_to_proto,
    lines_from_proto,
    lines_to_proto,
    parts_to_proto,
    timestamp,
    totals_to_proto,
    units_from_proto,
    units_to_proto,
)

PACKAGE = "polymart.order.v1"
SCHEMA_VERSION = 2


def _without_charges(kind: type[pb.OrderPlaced] | type[pb.OrderConfirmed]) -> Callable[[bytes], bytes]:
    """Schema 1 knew neither tax nor shipping: what was to be paid was what the lines cost."""

    def upcast(data: bytes) -> bytes:
        event = kind.FromString(data)
        nothing = Money(event.total.currency_code, 0)
        event.totals.CopyFrom(totals_to_proto(Totals(Money.from_proto(event.total), nothing, nothing, nothing)))
        return event.SerializeToString()

    return upcast


def _cancelled_by(data: bytes) -> bytes:
    """Schema 1 didn't say who called an order off: its buyer, unless the payment couldn't be collected.

    Of a guest it says so, as schema 2 does; of what was said in place of a reason nothing changes.
    """
    event = pb.OrderCancelled.FromString(data)
    by_payment = event.failure.reason == order_pb2.ORDER_FAILURE_REASON_CAPTURE_FAILED
    event.cancelled_by = "payment_svc" if by_payment else event.customer_id or o.GUEST
    return event.SerializeToString()


# (type, schema version) -> the bytes of the next schema version. An event is read through as many as it takes.
UPCASTERS: Mapping[tuple[str, int], Callable[[bytes], bytes]] = {
    ("OrderPlaced", 1): _without_charges(pb.OrderPlaced),
    ("OrderConfirmed", 1): _without_charges(pb.OrderConfirmed),
    ("OrderCancelled", 1): _cancelled_by,
}

PUBLISHED = frozenset(
    name.rpartition(".")[2]
    for name, route in TOPOLOGY.routes.items()
    if name.startswith(f"{PACKAGE}.") and route.aggregate
)


def event_to_proto(event: o.Event, order: o.Order, version: int) -> Message:
    """The message of `event`, which made (or helped to make) `order` what it is; `version` is the event's own."""
    id = order.order_id
    match event:
        case o.OrderPlaced():
            return pb.OrderPlaced(
                order_id=id,
                customer_id=event.customer_id,
                lines=lines_to_proto(event.lines),
                total=event.total.to_proto(),
                payment_token=event.payment_token,
                deadline=timestamp(event.deadline),
                order_version=version,
                totals=totals_to_proto(Totals.of(event.lines, event.shipping)),
                destination=destination_to_proto(event.destination),
            )
        case o.OrderStockReserved():
            return pb.OrderStockReserved(order_id=id, order_version=version)
        case o.OrderConfirmed():
            return pb.OrderConfirmed(
                order_id=id,
                customer_id=order.customer_id,
                lines=lines_to_proto(order.lines),
                total=order.total.to_proto(),
                order_version=version,
                totals=totals_to_proto(order.totals),
            )
        case o.OrderStockCommitted():
            return pb.OrderStockCommitted(order_id=id, order_version=version)
        case o.OrderPaymentCaptured():
            return pb.OrderPaymentCaptured(order_id=id, order_version=version)
        case o.OrderRejected(failure):
            return pb.OrderRejected(
                order_id=id,
                customer_id=order.customer_id,
                failure=failure_to_proto(failure),
                total=order.total.to_proto(),
                order_version=version,
            )
        case o.OrderCancelled(failure, by, request_id):
            return pb.OrderCancelled(
                order_id=id,
                customer_id=order.customer_id,
                failure=failure_to_proto(failure),
                total=order.total.to_proto(),
                cancelled_by=by,
                request_id=request_id,
                order_version=version,
            )
        case o.OrderStockReleased():
            return pb.OrderStockReleased(order_id=id, order_version=version)
        case o.OrderPaymentVoided(refunded):
            back = refunded.to_proto() if refunded else None
            return pb.OrderPaymentVoided(order_id=id, refunded=back, order_version=version)
        case o.OrderSettled():
            return pb.OrderSettled(order_id=id, status=STATUS[order.status], order_version=version)
    return _later_to_proto(event, order, version)


def _later_to_proto(event: o.Event, order: o.Order, version: int) -> Message:
    """The messages of what happens to an order that is confirmed."""
    id = order.order_id
    match event:
        case o.OrderLinesCancelled():
            return pb.OrderLinesCancelled(
                order_id=id,
                customer_id=order.customer_id,
                operation_id=event.operation_id,
                units=units_to_proto(event.units),
                refund=event.refund.to_proto(),
                cancelled_by=event.by,
                reason=event.reason,
                order_version=version,
            )
        case o.OrderShipped():
            return pb.OrderShipped(
                order_id=id,
                customer_id=order.customer_id,
                shipment_id=event.shipment_id,
                request_id=event.request_id,
                units=units_to_proto(event.units),
                lines=parts_to_proto(order, event.units),
                carrier=event.carrier,
                tracking_number=event.tracking_number,
                shipped_by=event.by,
                order_version=version,
            )
        case o.OrderDelivered():
            return pb.OrderDelivered(
                order_id=id,
                customer_id=order.customer_id,
                shipment_id=event.shipment_id,
                lines=parts_to_proto(order, order.shipment(event.shipment_id).units),
                reported_by=event.by,
                order_version=version,
            )
        case o.OrderLinesReturned():
            return pb.OrderLinesReturned(
                order_id=id,
                customer_id=order.customer_id,
                operation_id=event.operation_id,
                units=units_to_proto(event.units),
                refund=event.refund.to_proto(),
                restock=event.restock,
                returned_by=event.by,
                reason=event.reason,
                order_version=version,
            )
        case o.OrderStockRestocked():
            return pb.OrderStockRestocked(order_id=id, operation_id=event.operation_id, order_version=version)
        case o.OrderRefunded():
            return pb.OrderRefunded(
                order_id=id,
                customer_id=order.customer_id,
                operation_id=event.operation_id,
                amount=event.amount.to_proto(),
                refunded=order.refunded.to_proto(),
                order_version=version,
            )
        case o.OrderRefundFailed():
            return pb.OrderRefundFailed(
                order_id=id, operation_id=event.operation_id, reason=event.reason, order_version=version
            )
        case o.OrderRetried():
            return pb.OrderRetried(order_id=id, retried_by=event.by, reason=event.reason, order_version=version)
    raise TypeError(f"{type(event).__name__} is no event of an order")


def _placed(data: bytes) -> o.Event:
    message = pb.OrderPlaced.FromString(data)
    return o.OrderPlaced(
        customer_id=message.customer_id,
        lines=lines_from_proto(message.lines),
        total=Money.from_proto(message.total),
        payment_token=message.payment_token,
        deadline=message.deadline.ToDatetime(UTC),
        shipping=_shipping(message),
        destination=destination_from_proto(message),
    )


def _cancelled(data: bytes) -> o.Event:
    message = pb.OrderCancelled.FromString(data)
    return o.OrderCancelled(failure_from_proto(message.failure), message.cancelled_by, message.request_id)


def _voided(data: bytes) -> o.Event:
    message = pb.OrderPaymentVoided.FromString(data)
    return o.OrderPaymentVoided(Money.from_proto(message.refunded) if message.HasField("refunded") else None)


def _lines_cancelled(data: bytes) -> o.Event:
    message = pb.OrderLinesCancelled.FromString(data)
    units, refund = units_from_proto(message.units), Money.from_proto(message.refund)
    return o.OrderLinesCancelled(message.operation_id, units, refund, message.cancelled_by, message.reason)


def _shipped(data: bytes) -> o.Event:
    message = pb.OrderShipped.FromString(data)
    return o.OrderShipped(
        shipment_id=message.shipment_id,
        request_id=message.request_id,
        units=units_from_proto(message.units),
        carrier=message.carrier,
        tracking_number=message.tracking_number,
        by=message.shipped_by,
    )


def _delivered(data: bytes) -> o.Event:
    message = pb.OrderDelivered.FromString(data)
    return o.OrderDelivered(message.shipment_id, message.reported_by)


def _lines_returned(data: bytes) -> o.Event:
    message = pb.OrderLinesReturned.FromString(data)
    return o.OrderLinesReturned(
        operation_id=message.operation_id,
        units=units_from_proto(message.units),
        refund=Money.from_proto(message.refund),
        restock=message.restock,
        by=message.returned_by,
        reason=message.reason,
    )


def _refunded(data: bytes) -> o.Event:
    message = pb.OrderRefunded.FromString(data)
    return o.OrderRefunded(message.operation_id, Money.from_proto(message.amount))


def _refund_failed(data: bytes) -> o.Event:
    message = pb.OrderRefundFailed.FromString(data)
    return o.OrderRefundFailed(message.operation_id, message.reason)


def _retried(data: bytes) -> o.Event:
    message = pb.OrderRetried.FromString(data)
    return o.OrderRetried(message.retried_by, message.reason)


def _shipping(message: pb.OrderPlaced) -> Shipping | None:
    totals = message.totals
    if not (totals.shipping.units or totals.shipping.nanos):
        return None
    return Shipping(Money.from_proto(totals.shipping), Money.from_proto(totals.shipping_tax))


def without_secrets(message: Message) -> Message:
    """A stored event as others may see it: how an order is paid is between its buyer and the payment."""
    if not isinstance(message, pb.OrderPlaced):
        return message
    shown = pb.OrderPlaced()
    shown.CopyFrom(message)
    shown.ClearField("payment_token")
    return shown


def shown_bytes(type: str, schema_version: int, data: bytes) -> bytes:
    """A stored event as others may see it, in the current schema. Raises ValueError as `upcast` does."""
    data = upcast(type, schema_version, data)
    return without_secrets(pb.OrderPlaced.FromString(data)).SerializeToString() if type == "OrderPlaced" else data


# Confirmed and settled events repeat for their readers what the order knows from its first event.
_DECODERS: Mapping[str, Callable[[bytes], o.Event]] = {
    "OrderPlaced": _placed,
    "OrderStockReserved": lambda _: o.OrderStockReserved(),
    "OrderConfirmed": lambda _: o.OrderConfirmed(),
    "OrderStockCommitted": lambda _: o.OrderStockCommitted(),
    "OrderPaymentCaptured": lambda _: o.OrderPaymentCaptured(),
    "OrderRejected": lambda data: o.OrderRejected(failure_from_proto(pb.OrderRejected.FromString(data).failure)),
    "OrderCancelled": _cancelled,
    "OrderStockReleased": lambda _: o.OrderStockReleased(),
    "OrderPaymentVoided": _voided,
    "OrderSettled": lambda _: o.OrderSettled(),
    "OrderLinesCancelled": _lines_cancelled,
    "OrderShipped": _shipped,
    "OrderDelivered": _delivered,
    "OrderLinesReturned": _lines_returned,
    "OrderStockRestocked": lambda data: o.OrderStockRestocked(pb.OrderStockRestocked.FromString(data).operation_id),
    "OrderRefunded": _refunded,
    "OrderRefundFailed": _refund_failed,
    "OrderRetried": _retried,
}


def upcast(type: str, schema_version: int, data: bytes) -> bytes:
    """`data` as the current schema has it. Raises ValueError for a schema newer than this release."""
    if schema_version > SCHEMA_VERSION:
        raise ValueError(f"{type} is stored in schema {schema_version}; this release knows {SCHEMA_VERSION}")
    while schema_version < SCHEMA_VERSION:
        if step := UPCASTERS.get((type, schema_version)):
            data = step(data)
        schema_version += 1
    return data


def event_from_bytes(type: str, schema_version: int, data: bytes) -> o.Event:
    """Raises ValueError for a type or a schema that this release doesn't know, and for data that is no such event."""
    if type not in _DECODERS:
        raise ValueError(f"no event of an order has the type {type}")
    try:
        return _DECODERS[type](upcast(type, schema_version, data))
    except (DecodeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"the data is no {type}") from error


def _reservation(quantities: Mapping[str, int]) -> list[stock.ReservationLine]:
    return [stock.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]


def command_to_proto(command: m.Command, order_id: str) -> Message:
    match command:
        case m.ReserveStock(quantities):
            return stock.ReserveStock(order_id=order_id, lines=_reservation(quantities))
        case m.CommitStock():
            return stock.CommitStock(order_id=order_id)
        case m.ReleaseStock():
            return stock.ReleaseStock(order_id=order_id)
        case m.RestockStock(operation_id, quantities):
            lines = _reservation(quantities)
            return stock.RestockStock(order_id=order_id, operation_id=operation_id, lines=lines)
        case m.AuthorizePayment(amount, payment_token):
            return payment.AuthorizePayment(payment_id=order_id, amount=amount.to_proto(), payment_token=payment_token)
        case m.CapturePayment():
            return payment.CapturePayment(payment_id=order_id)
        case m.VoidPayment():
            return payment.VoidPayment(payment_id=order_id)
        case m.RefundPayment(operation_id, refund):
            return payment.RefundPayment(payment_id=order_id, operation_id=operation_id, amount=refund.to_proto())
