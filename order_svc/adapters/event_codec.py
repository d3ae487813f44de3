"""Events and commands as the protobuf messages they are stored and sent as."""

from collections.abc import Callable, Mapping
from datetime import UTC

from google.protobuf.message import DecodeError, Message
from polymart.inventory.v1 import commands_pb2 as stock
from polymart.order.v1 import events_pb2 as pb
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
    timestamp,
    totals_to_proto,
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


# (type, schema version) -> the bytes of the next schema version. An event is read through as many as it takes.
UPCASTERS: Mapping[tuple[str, int], Callable[[bytes], bytes]] = {
    ("OrderPlaced", 1): _without_charges(pb.OrderPlaced),
    ("OrderConfirmed", 1): _without_charges(pb.OrderConfirmed),
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
        case o.OrderCancelled(failure):
            return pb.OrderCancelled(
                order_id=id,
                customer_id=order.customer_id,
                failure=failure_to_proto(failure),
                total=order.total.to_proto(),
                order_version=version,
            )
        case o.OrderStockReleased():
            return pb.OrderStockReleased(order_id=id, order_version=version)
        case o.OrderPaymentVoided():
            return pb.OrderPaymentVoided(order_id=id, order_version=version)
        case o.OrderSettled():
            return pb.OrderSettled(order_id=id, status=STATUS[order.status], order_version=version)


def _placed(data: bytes) -> o.Event:
    message = pb.OrderPlaced.FromString(data)
    shipping = Shipping(Money.from_proto(message.totals.shipping), Money.from_proto(message.totals.shipping_tax))
    return o.OrderPlaced(
        customer_id=message.customer_id,
        lines=lines_from_proto(message.lines),
        total=Money.from_proto(message.total),
        payment_token=message.payment_token,
        deadline=message.deadline.ToDatetime(UTC),
        shipping=shipping if shipping.cost.nanos else None,
        destination=destination_from_proto(message),
    )


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
    "OrderCancelled": lambda data: o.OrderCancelled(failure_from_proto(pb.OrderCancelled.FromString(data).failure)),
    "OrderStockReleased": lambda _: o.OrderStockReleased(),
    "OrderPaymentVoided": lambda _: o.OrderPaymentVoided(),
    "OrderSettled": lambda _: o.OrderSettled(),
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


def command_to_proto(command: m.Command, order_id: str) -> Message:
    match command:
        case m.ReserveStock(quantities):
            lines = [stock.ReservationLine(sku=sku, quantity=quantity) for sku, quantity in quantities.items()]
            return stock.ReserveStock(order_id=order_id, lines=lines)
        case m.CommitStock():
            return stock.CommitStock(order_id=order_id)
        case m.ReleaseStock():
            return stock.ReleaseStock(order_id=order_id)
        case m.AuthorizePayment(amount, payment_token):
            return payment.AuthorizePayment(payment_id=order_id, amount=amount.to_proto(), payment_token=payment_token)
        case m.CapturePayment():
            return payment.CapturePayment(payment_id=order_id)
        case m.VoidPayment():
            return payment.VoidPayment(payment_id=order_id)
