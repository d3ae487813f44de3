"""What an order is told, and what it asks of stock and payment."""

from dataclasses import dataclass

from chassis.money import Money


@dataclass(frozen=True, slots=True)
class Shortage:
    sku: str
    wanted: int
    available: int


@dataclass(frozen=True, slots=True)
class StockReserved:
    pass


@dataclass(frozen=True, slots=True)
class StockRejected:
    shortages: tuple[Shortage, ...]


@dataclass(frozen=True, slots=True)
class StockCommitted:
    pass


@dataclass(frozen=True, slots=True)
class StockReleased:
    pass


@dataclass(frozen=True, slots=True)
class PaymentAuthorized:
    pass


@dataclass(frozen=True, slots=True)
class PaymentDeclined:
    reason: str


@dataclass(frozen=True, slots=True)
class PaymentCaptured:
    pass


@dataclass(frozen=True, slots=True)
class PaymentCaptureFailed:
    reason: str


@dataclass(frozen=True, slots=True)
class PaymentVoided:
    pass


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The buyer calls the order off."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """It may be too late; the order itself knows."""


Reply = (
    StockReserved
    | StockRejected
    | StockCommitted
    | StockReleased
    | PaymentAuthorized
    | PaymentDeclined
    | PaymentCaptured
    | PaymentCaptureFailed
    | PaymentVoided
)
Message = Reply | CancelRequested | DeadlinePassed


@dataclass(frozen=True, slots=True)
class ReserveStock:
    quantities: dict[str, int]  # units by SKU


@dataclass(frozen=True, slots=True)
class CommitStock:
    pass


@dataclass(frozen=True, slots=True)
class ReleaseStock:
    pass


@dataclass(frozen=True, slots=True)
class AuthorizePayment:
    amount: Money
    payment_token: str


@dataclass(frozen=True, slots=True)
class CapturePayment:
    pass


@dataclass(frozen=True, slots=True)
class VoidPayment:
    pass


Command = ReserveStock | CommitStock | ReleaseStock | AuthorizePayment | CapturePayment | VoidPayment
