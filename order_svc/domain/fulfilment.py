"""What becomes of an order's units once it is confirmed: shipped, called off before that, returned after it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from chassis.money import Money


@dataclass(frozen=True, slots=True)
class Units:
    """Units, over 0, of the line at an index of the order."""

    line: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Shipment:
    """`request_id` is the request that made it; `deliver_time` is None while it is under way."""

    shipment_id: str
    request_id: str
    units: tuple[Units, ...]
    carrier: str
    tracking_number: str
    ship_time: datetime
    deliver_time: datetime | None = None


class Kind(StrEnum):
    CANCELLATION = "CANCELLATION"
    RETURN = "RETURN"


class Progress(StrEnum):
    """How far something has come that stock or payment has to do for an operation."""

    NONE = "NONE"  # there is nothing to do
    DUE = "DUE"
    DONE = "DONE"
    FAILED = "FAILED"  # refused for good: an operator has to look


@dataclass(frozen=True, slots=True)
class Operation:
    """Units called off or taken back, and what follows: money to refund, units by SKU to put back into stock.

    Its id is that of the request. A refund that failed is tried again under another one: what payment refused once
    stays refused.
    """

    operation_id: str
    kind: Kind
    units: tuple[Units, ...]
    refund: Money
    restock: Mapping[str, int]
    refunding: Progress
    restocking: Progress
    tries: int = 1
    failure: str = ""

    @property
    def refund_id(self) -> str:
        return self.operation_id if self.tries == 1 else f"{self.operation_id}.{self.tries}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Units by the index of their line. What is delivered was shipped, what is returned was delivered."""

    ordered: Counter[int]
    cancelled: Counter[int] = field(default_factory=Counter)
    shipped: Counter[int] = field(default_factory=Counter)
    delivered: Counter[int] = field(default_factory=Counter)
    returned: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, ordered: Iterable[int], shipments: Iterable[Shipment], operations: Iterable[Operation]) -> "Counts":
        counts = cls(Counter(dict(enumerate(ordered))))
        for shipment in shipments:
            counts.shipped.update(total(shipment.units))
            if shipment.deliver_time:
                counts.delivered.update(total(shipment.units))
        for operation in operations:
            gone = counts.cancelled if operation.kind is Kind.CANCELLATION else counts.returned
            gone.update(total(operation.units))
        return counts

    @property
    def unshipped(self) -> Counter[int]:
        """What can be shipped or called off."""
        return self.ordered - self.cancelled - self.shipped

    @property
    def returnable(self) -> Counter[int]:
        return self.delivered - self.returned

    @property
    def gone(self) -> Counter[int]:
        """What the customer doesn't keep."""
        return self.cancelled + self.returned


def total(units: Iterable[Units]) -> Counter[int]:
    counted: Counter[int] = Counter()
    for one in units:
        counted[one.line] += one.quantity
    return counted


def as_units(counted: Mapping[int, int]) -> tuple[Units, ...]:
    """In the order of their lines."""
    return tuple(Units(line, quantity) for line, quantity in sorted(counted.items()) if quantity)
