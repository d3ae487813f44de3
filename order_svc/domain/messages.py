"""What an order is told, and what it asks of stock and payment."""

from dataclasses import dataclass

from chassis.money import Money
from order_svc.domain.fulfilment import Units


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
    """`refunded` is what the void gave back of what had been captured."""

    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class StockRestocked:
    operation_id: str


@dataclass(frozen=True, slots=True)
class PaymentRefunded:
    operation_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class PaymentRefundFailed:
    operation_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The buyer, or with `by_operator` somebody of the shop, calls off `units`: none named, all that isn't shipped."""

    by: str = ""
    reason: str = ""
    request_id: str = ""
    units: tuple[Units, ...] = ()
    by_operator: bool = False


@dataclass(frozen=True, slots=True)
class ShipmentRequested:
    """`units` leave: none named, all that is left to ship. `shipment_id` is for a shipment that is made by this."""

    request_id: str
    shipment_id: str
    by: str
    units: tuple[Units, ...] = ()
    carrier: str = ""
    tracking_number: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryReported:
    shipment_id: str
    by: str


@dataclass(frozen=True, slots=True)
class ReturnRequested:
    """`units` came back: none named, all that was delivered. `restock`: they are fit for sale."""

    request_id: str
    by: str
    restock: bool
    units: tuple[Units, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RetryRequested:
    by: str
    reason: str


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
    | StockRestocked
    | PaymentRefunded
    | PaymentRefundFailed
)
Request = CancelRequested | ShipmentRequested | DeliveryReported | ReturnRequested | RetryRequested
Message = Reply | Request | DeadlinePassed


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


@dataclass(frozen=True, slots=True)
class RestockStock:
    operation_id: str
    quantities: dict[str, int]  # units by SKU


@dataclass(frozen=True, slots=True)
class RefundPayment:
    operation_id: str
    amount: Money


Command = (
    ReserveStock
    | CommitStock
    | ReleaseStock
    | RestockStock
    | AuthorizePayment
    | CapturePayment
    | VoidPayment
    | RefundPayment
)
