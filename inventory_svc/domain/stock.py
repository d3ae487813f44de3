"""How many units there are of a SKU, what a shopper is told of it, and every change as a movement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from chassis.errors import FailedPrecondition

LOW = 5
MAX_UNITS = 10**12
# The message of an error travels in a header, which gRPC limits.
_LONGEST_ERROR = 700
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class Availability(StrEnum):
    IN_STOCK = "IN_STOCK"
    LOW = "LOW"
    OUT = "OUT"

    @classmethod
    def of(cls, available: int) -> "Availability":
        if available > LOW:
            return cls.IN_STOCK
        return cls.LOW if available > 0 else cls.OUT


class Kind(StrEnum):
    """What a movement is: the first four belong to an order, the others to an operation of the warehouse."""

    RESERVE = "RESERVE"
    COMMIT = "COMMIT"
    RELEASE = "RELEASE"
    RESTOCK = "RESTOCK"
    COUNT = "COUNT"
    ADJUST = "ADJUST"


@dataclass(frozen=True, slots=True)
class Level:
    """Units of one SKU. `availability` is what was last announced: None before the SKU is first stocked."""

    sku: str
    on_hand: int = 0
    reserved: int = 0
    availability: Availability | None = None
    availability_version: int = 0
    updated_at: datetime = _NEVER

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved

    def announced(self) -> "Level":
        """The level with the availability that its units mean; a flip raises the version."""
        availability = Availability.of(self.available)
        if availability == self.availability:
            return self
        return replace(self, availability=availability, availability_version=self.availability_version + 1)


@dataclass(frozen=True, slots=True)
class Movement:
    """One change of one SKU: what it added to (or, negative, took from) units on hand and units reserved."""

    sku: str
    kind: Kind
    on_hand: int = 0
    reserved: int = 0
    order_id: str | None = None
    operation_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AvailabilityChanged:
    """What a shopper is told flipped."""

    sku: str
    availability: Availability
    version: int


@dataclass(slots=True)
class Tally:
    """Running totals over the levels that a transaction has locked."""

    before: Mapping[str, Level]
    movements: list[Movement] = field(default_factory=list)
    _now: dict[str, Level] = field(default_factory=dict)
    _moved_by: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, sku: str) -> Level:
        return self._now.get(sku) or self.before.get(sku) or Level(sku)

    def move(self, movement: Movement, *, by: int = 0) -> None:
        """Apply a movement; `by` is the index of the command that made it."""
        level = self[movement.sku]
        self._now[level.sku] = replace(
            level, on_hand=level.on_hand + movement.on_hand, reserved=level.reserved + movement.reserved
        )
        self._moved_by[level.sku] = by
        self.movements.append(movement)

    def changed(self, touched: Iterable[str] = ()) -> list[Level]:
        """The final levels of what moved or was `touched`, availability announced, by SKU."""
        skus = sorted(self._now.keys() | set(touched))
        return [level for sku in skus if (level := self[sku].announced()) != self.before.get(sku)]

    def flips(self, levels: Iterable[Level]) -> list[tuple[AvailabilityChanged, int]]:
        """The flips among `levels`, each with the index of the command that moved its SKU last."""
        flips = []
        for level in levels:
            before = self.before.get(level.sku)
            version = before.availability_version if before else 0
            if level.availability and level.availability_version != version:
                flip = AvailabilityChanged(level.sku, level.availability, level.availability_version)
                flips.append((flip, self._moved_by.get(level.sku, 0)))
        return flips


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Units of one SKU to add, or to take when negative."""

    sku: str
    delta: int
    reason: str = ""


def count(levels: Mapping[str, Level], counts: Mapping[str, int], operation_id: str) -> Tally:
    """Set units on hand, all or none. Raises FailedPrecondition if a SKU would have less than is reserved."""
    _refuse_impossible(levels, counts)
    tally = Tally(levels)
    for sku, on_hand in counts.items():
        if delta := on_hand - tally[sku].on_hand:
            tally.move(Movement(sku, Kind.COUNT, on_hand=delta, operation_id=operation_id))
    return tally


def adjust(levels: Mapping[str, Level], adjustments: Sequence[Adjustment], operation_id: str) -> Tally:
    """Add and take units, all or none. Raises FailedPrecondition if a SKU would have less than reserved."""
    tally = Tally(levels)
    _refuse_impossible(levels, {a.sku: tally[a.sku].on_hand + a.delta for a in adjustments})
    for a in adjustments:
        tally.move(Movement(a.sku, Kind.ADJUST, on_hand=a.delta, operation_id=operation_id, reason=a.reason))
    return tally


def _refuse_impossible(levels: Mapping[str, Level], wanted: Mapping[str, int]) -> None:
    faults = []
    for sku, units in wanted.items():
        reserved = levels[sku].reserved if sku in levels else 0
        if units < reserved:
            faults.append(f"{sku} would have {units} with {reserved} reserved")
        elif units > MAX_UNITS:
            faults.append(f"{sku} would have {units}, over {MAX_UNITS}")
    if faults:
        text = "nothing was changed"
        for index, fault in enumerate(faults):
            if len(text) > _LONGEST_ERROR:
                text += f"; and {len(faults) - index} more"
                break
            text += f"; {fault}"
        raise FailedPrecondition(text, reason="STOCK_BELOW_RESERVED")
