"""The order: what was bought, and the fold of all that happened to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from chassis.money import Money
from order_svc.domain.totals import Destination, Shipping, Totals


class Status(StrEnum):
    """PENDING -> CONFIRMED | REJECTED | CANCELLED; CONFIRMED -> CANCELLED only if the payment can't be collected."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"


class FailureReason(StrEnum):
    OUT_OF_STOCK = "OUT_OF_STOCK"
    PAYMENT_DECLINED = "PAYMENT_DECLINED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED_BY_CUSTOMER = "CANCELLED_BY_CUSTOMER"
    CAPTURE_FAILED = "CAPTURE_FAILED"


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
    failure: Failure


@dataclass(frozen=True, slots=True)
class OrderStockReleased:
    pass


@dataclass(frozen=True, slots=True)
class OrderPaymentVoided:
    pass


@dataclass(frozen=True, slots=True)
class OrderSettled:
    pass


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
                return replace(now._without(failure.reason), status=Status.CANCELLED, failure=failure)
            case OrderStockReleased():
                return replace(now, stock=Holding.NOTHING)
            case OrderPaymentVoided():
                return replace(now, payment=Holding.NOTHING)
            case OrderSettled():
                return replace(now, settled=True)
            case OrderPlaced():
                raise ValueError(f"order {self.order_id} was placed twice")

    def _without(self, refusal: FailureReason) -> "Order":
        """Who refused holds nothing. A failed capture proves no such thing: its authorisation may still stand."""
        if refusal is FailureReason.OUT_OF_STOCK:
            return replace(self, stock=Holding.NOTHING)
        if refusal is FailureReason.PAYMENT_DECLINED:
            return replace(self, payment=Holding.NOTHING)
        return self

    def stock_wanted(self) -> dict[str, int]:
        """Units to hold by SKU, over all tracked lines, in the order of their first lines."""
        wanted: dict[str, int] = {}
        for line in self.lines:
            if not line.untracked:
                wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        return wanted
