"""The order: what was bought, and the fold of all that happened to it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from chassis.errors import NotFound
from chassis.money import Money
from order_svc.domain.fulfilment import Counts, Kind, Operation, Progress, Shipment, Units, total
from order_svc.domain.totals import MILLION, Destination, Shipping, Totals

GUEST = "guest"


class Status(StrEnum):
    """PENDING -> CONFIRMED | REJECTED | CANCELLED; CONFIRMED -> CANCELLED while nothing is shipped;
    CONFIRMED -> PARTLY_SHIPPED -> SHIPPED -> DELIVERED -> RETURNED."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    PARTLY_SHIPPED = "PARTLY_SHIPPED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    RETURNED = "RETURNED"


class FailureReason(StrEnum):
    OUT_OF_STOCK = "OUT_OF_STOCK"
    PAYMENT_DECLINED = "PAYMENT_DECLINED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED_BY_CUSTOMER = "CANCELLED_BY_CUSTOMER"
    CAPTURE_FAILED = "CAPTURE_FAILED"
    CANCELLED_BY_OPERATOR = "CANCELLED_BY_OPERATOR"


class Holding(StrEnum):
    """What a participant (stock, payment) may hold for an order, as far as the order knows."""

    NOTHING = "NOTHING"  # not asked yet, refused, or given back
    ASKED = "ASKED"
    HELD = "HELD"
    TAKEN = "TAKEN"


@dataclass(frozen=True, slots=True)
class Line:
    """`net` is what the line costs without tax; None where that is just quantity times unit_price. `tax_rate` is in
    millionths."""

    sku: str
    quantity: int
    unit_price: Money
    product_id: str
    product_name: str
    untracked: bool = False
    net: Money | None = None
    tax: Money | None = None
    tax_rate: int = 0

    @property
    def total(self) -> Money:
        """Without tax."""
        return self.net or self.unit_price * self.quantity

    @property
    def gross(self) -> Money:
        return self.total + self.tax if self.tax else self.total

    def part(self, units: int) -> "Line":
        """The line as if no more had been ordered."""
        exact = self.unit_price * units
        rounded = exact.rounded()
        tax = rounded.times(self.tax_rate, MILLION) if self.tax_rate else None
        return replace(self, quantity=units, net=None if rounded == exact else rounded, tax=tax)


@dataclass(frozen=True, slots=True)
class Failure:
    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    customer_id: str  # empty for a guest
    lines: tuple[Line, ...]
    total: Money
    payment_token: str
    deadline: datetime
    shipping: Shipping | None = None
    destination: Destination | None = None


@dataclass(frozen=True, slots=True)
class OrderStockReserved:
    pass


@dataclass(frozen=True, slots=True)
class OrderConfirmed:
    pass


@dataclass(frozen=True, slots=True)
class OrderStockCommitted:
    pass


@dataclass(frozen=True, slots=True)
class OrderPaymentCaptured:
    pass


@dataclass(frozen=True, slots=True)
class OrderRejected:
    failure: Failure


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """`by` is who called it off, or the service whose refusal it follows."""

    failure: Failure
    by: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class OrderStockReleased:
    pass


@dataclass(frozen=True, slots=True)
class OrderPaymentVoided:
    """`refunded` is what was given back for that."""

    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class OrderSettled:
    pass


@dataclass(frozen=True, slots=True)
class OrderLinesCancelled:
    """A part of it was called off before it was shipped; `refund` is what goes back for it."""

    operation_id: str
    units: tuple[Units, ...]
    refund: Money
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderShipped:
    shipment_id: str
    request_id: str
    units: tuple[Units, ...]
    carrier: str
    tracking_number: str
    by: str


@dataclass(frozen=True, slots=True)
class OrderDelivered:
    shipment_id: str
    by: str


@dataclass(frozen=True, slots=True)
class OrderLinesReturned:
    operation_id: str
    units: tuple[Units, ...]
    refund: Money
    restock: bool
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderStockRestocked:
    operation_id: str


@dataclass(frozen=True, slots=True)
class OrderRefunded:
    """`operation_id` is the payment's name of the refund, `Operation.refund_id` where the order asked for it."""

    operation_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class OrderRefundFailed:
    operation_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderRetried:
    by: str
    reason: str


Event = (
    OrderPlaced
    | OrderStockReserved
    | OrderConfirmed
    | OrderStockCommitted
    | OrderPaymentCaptured
    | OrderRejected
    | OrderCancelled
    | OrderStockReleased
    | OrderPaymentVoided
    | OrderSettled
    | OrderLinesCancelled
    | OrderShipped
    | OrderDelivered
    | OrderLinesReturned
    | OrderStockRestocked
    | OrderRefunded
    | OrderRefundFailed
    | OrderRetried
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event of an order and when it happened. Versions count from 1 without gaps."""

    version: int
    at: datetime
    event: Event


@dataclass(frozen=True, slots=True)
class Order:
    order_id: str
    customer_id: str
    lines: tuple[Line, ...]
    total: Money
    payment_token: str
    place_time: datetime
    deadline: datetime
    update_time: datetime
    version: int = 1
    status: Status = Status.PENDING
    failure: Failure | None = None
    settled: bool = False
    stock: Holding = Holding.NOTHING
    payment: Holding = Holding.NOTHING
    shipments: tuple[Shipment, ...] = ()
    operations: tuple[Operation, ...] = ()
    refunds: Mapping[str, Money] = field(default_factory=dict)  # by the payment's id of each, "" for that of a void
    shipping: Shipping | None = None
    destination: Destination | None = None

    @property
    def totals(self) -> Totals:
        return Totals.of(self.lines, self.shipping)

    @classmethod
    def begun(cls, order_id: str, placed: OrderPlaced, at: datetime) -> "Order":
        """The order after its first event. Stock is asked first; payment at once where no line is tracked."""
        tracked = any(not line.untracked for line in placed.lines)
        return cls(
            order_id=order_id,
            customer_id=placed.customer_id,
            lines=placed.lines,
            total=placed.total,
            payment_token=placed.payment_token,
            place_time=at,
            deadline=placed.deadline,
            update_time=at,
            stock=Holding.ASKED if tracked else Holding.NOTHING,
            payment=Holding.NOTHING if tracked else Holding.ASKED,
            shipping=placed.shipping,
            destination=placed.destination,
        )

    @classmethod
    def fold(cls, order_id: str, history: Sequence[Recorded]) -> "Order":
        """The order that these events make, the first of them an OrderPlaced."""
        first = history[0]
        assert isinstance(first.event, OrderPlaced)
        return cls.begun(order_id, first.event, first.at).after_all(history[1:])

    def after_all(self, history: Iterable[Recorded]) -> "Order":
        order = self
        for recorded in history:
            order = order.after(recorded.event, recorded.at)
        return order

    def after(self, event: Event, at: datetime) -> "Order":
        """This order with one more event."""
        now = replace(self, version=self.version + 1, update_time=at)
        match event:
            case OrderStockReserved():
                return replace(now, stock=Holding.HELD, payment=Holding.ASKED)
            case OrderConfirmed():
                return replace(now, status=Status.CONFIRMED, payment=Holding.HELD)
            case OrderStockCommitted():
                return replace(now, stock=Holding.TAKEN)
            case OrderPaymentCaptured():
                return replace(now, payment=Holding.TAKEN)
            case OrderRejected(failure):
                return replace(now._without(failure.reason), status=Status.REJECTED, failure=failure)
            case OrderCancelled(failure):
                now = now._without(failure.reason)
                return replace(now, status=Status.CANCELLED, failure=failure, settled=False)
            case OrderStockReleased():
                return replace(now, stock=Holding.NOTHING)
            case OrderPaymentVoided(refunded):
                return replace(now._refunded("", refunded), payment=Holding.NOTHING)
            case OrderSettled():
                return replace(now, settled=True)
            case OrderShipped() | OrderDelivered():
                return now._moved(event, at)
            case OrderLinesCancelled() | OrderLinesReturned():
                return now._less(event)
            case OrderStockRestocked(operation_id):
                done = (replace(o, restocking=Progress.DONE) for o in self.operations if o.operation_id == operation_id)
                return now._with(done)
            case OrderRefunded(refund_id, amount):
                paid = (replace(o, refunding=Progress.DONE) for o in self.operations if o.refund_id == refund_id)
                return now._with(paid)._refunded(refund_id, amount)
            case OrderRefundFailed(refund_id, reason):
                failed = (o for o in self.operations if o.refund_id == refund_id)
                return now._with(replace(o, refunding=Progress.FAILED, failure=reason) for o in failed)
            case OrderRetried():
                return now._again()
            case OrderPlaced():
                raise ValueError(f"order {self.order_id} was placed twice")

    def _without(self, refusal: FailureReason) -> "Order":
        """Who refused holds nothing. A failed capture proves no such thing: its authorisation may still stand."""
        if refusal is FailureReason.OUT_OF_STOCK:
            return replace(self, stock=Holding.NOTHING)
        if refusal is FailureReason.PAYMENT_DECLINED:
            return replace(self, payment=Holding.NOTHING)
        return self

    def _moved(self, event: OrderShipped | OrderDelivered, at: datetime) -> "Order":
        if isinstance(event, OrderShipped):
            carried = event.carrier, event.tracking_number
            shipment = Shipment(event.shipment_id, event.request_id, event.units, *carried, ship_time=at)
            return replace(self, shipments=(*self.shipments, shipment))._standing()
        shipments = tuple(
            replace(shipment, deliver_time=at) if shipment.shipment_id == event.shipment_id else shipment
            for shipment in self.shipments
        )
        return replace(self, shipments=shipments)._standing()

    def _less(self, event: OrderLinesCancelled | OrderLinesReturned) -> "Order":
        unfit = isinstance(event, OrderLinesReturned) and not event.restock
        restock = {} if unfit else self.tracked(event.units)
        operation = Operation(
            event.operation_id,
            Kind.RETURN if isinstance(event, OrderLinesReturned) else Kind.CANCELLATION,
            event.units,
            event.refund,
            restock,
            Progress.DUE if event.refund.nanos else Progress.NONE,
            Progress.DUE if restock else Progress.NONE,
        )
        settled = self.settled and not (restock or event.refund.nanos)
        return replace(self, operations=(*self.operations, operation), settled=settled)._standing()

    def _standing(self) -> "Order":
        """The order in the status that its units mean."""
        counts = self.counts()
        status = self.status
        if counts.unshipped:
            status = Status.PARTLY_SHIPPED if counts.shipped else Status.CONFIRMED
        elif counts.shipped != counts.delivered:
            status = Status.SHIPPED
        else:
            status = Status.DELIVERED if counts.returnable else Status.RETURNED
        return replace(self, status=status)

    def _with(self, changed: Iterable[Operation]) -> "Order":
        by_id = {operation.operation_id: operation for operation in changed}
        return replace(self, operations=tuple(by_id.get(o.operation_id, o) for o in self.operations))

    def _refunded(self, refund_id: str, amount: Money | None) -> "Order":
        return self if amount is None else replace(self, refunds={**self.refunds, refund_id: amount})

    def _again(self) -> "Order":
        """Each refund that failed is due under a new id, as far as there is something left to give back."""
        order = self
        for operation in self.operations:
            if operation.refunding is Progress.FAILED:
                nanos = min(operation.refund.nanos, order.unclaimed())
                refunding = Progress.DUE if nanos else Progress.NONE
                tries, refund = operation.tries + 1, Money(self.total.currency, nanos)
                order = order._with([replace(operation, refunding=refunding, tries=tries, refund=refund, failure="")])
        return order

    def counts(self) -> Counts:
        return Counts.of((line.quantity for line in self.lines), self.shipments, self.operations)

    @property
    def buyer(self) -> str:
        """Who ordered, as histories name them."""
        return self.customer_id or GUEST

    @property
    def refunded(self) -> Money:
        return Money(self.total.currency, sum(amount.nanos for amount in self.refunds.values()))

    def unclaimed(self) -> int:
        """What was neither given back nor is due to be, in nanos."""
        due = sum(o.refund.nanos for o in self.operations if o.refunding is Progress.DUE)
        return max(0, self.total.nanos - self.refunded.nanos - due)

    def tracked(self, units: Iterable[Units]) -> dict[str, int]:
        """Those of `units` that are in stock, by SKU."""
        wanted: Counter[str] = Counter()
        for index, quantity in sorted(total(units).items()):
            if not self.lines[index].untracked:
                wanted[self.lines[index].sku] += quantity
        return dict(wanted)

    def shipment(self, shipment_id: str) -> Shipment:
        """Raises NotFound."""
        for shipment in self.shipments:
            if shipment.shipment_id == shipment_id:
                return shipment
        raise NotFound(f"order {self.order_id} has no shipment {shipment_id}")

    def stock_wanted(self) -> dict[str, int]:
        """Units to hold by SKU, over all tracked lines, in the order of their first lines."""
        wanted: dict[str, int] = {}
        for line in self.lines:
            if not line.untracked:
                wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        return wanted
