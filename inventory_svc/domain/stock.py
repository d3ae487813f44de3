"""How many units of a SKU lie where, what a shopper is told of it, and every change as a movement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from chassis.errors import FailedPrecondition

MAIN = "main"
LOW_STOCK = 5
MAX_UNITS = 10**12
# The message of an error travels in a header, which gRPC limits.
_LONGEST_ERROR = 700
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class Availability(StrEnum):
    IN_STOCK = "IN_STOCK"
    LOW = "LOW"
    OUT = "OUT"

    @classmethod
    def of(cls, available: int, low_stock: int = LOW_STOCK) -> "Availability":
        if available <= 0:
            return cls.OUT
        return cls.LOW if available <= low_stock else cls.IN_STOCK


class Kind(StrEnum):
    """What a movement is. The first three happen to an order once; RESTOCK, what its buyer returned, any number of
    times, each an operation; the others are operations of the warehouse."""

    RESERVE = "RESERVE"
    COMMIT = "COMMIT"
    RELEASE = "RELEASE"
    RESTOCK = "RESTOCK"
    COUNT = "COUNT"
    ADJUST = "ADJUST"
    RECEIVE = "RECEIVE"


@dataclass(frozen=True, slots=True)
class Units:
    """Units of one SKU at one location; reserved ones lie there too."""

    on_hand: int = 0
    reserved: int = 0

    @property
    def free(self) -> int:
        return self.on_hand - self.reserved


NONE = Units()


@dataclass(frozen=True, slots=True)
class Level:
    """Units of one SKU, `at` each location by its id.

    `availability` is what was last announced: None before the SKU is first stocked. `safety_stock` units are kept
    back from sale, over all locations; with `low_stock` available or fewer the SKU is low.
    """

    sku: str
    at: Mapping[str, Units] = field(default_factory=dict)
    availability: Availability | None = None
    availability_version: int = 0
    safety_stock: int = 0
    low_stock: int = LOW_STOCK
    updated_at: datetime = _NEVER

    @property
    def on_hand(self) -> int:
        return sum(units.on_hand for units in self.at.values())

    @property
    def reserved(self) -> int:
        return sum(units.reserved for units in self.at.values())

    @property
    def available(self) -> int:
        """Units that can be sold now."""
        return max(0, sum(units.on_hand - units.reserved for units in self.at.values()) - self.safety_stock)

    def free(self, location: str) -> int:
        """Units at a location that no order holds, safety stock included."""
        return self.at.get(location, NONE).free

    def announced(self) -> "Level":
        """The level with the availability that its units mean; a flip raises the version."""
        availability = Availability.of(self.available, self.low_stock)
        if availability == self.availability:
            return self
        return replace(self, availability=availability, availability_version=self.availability_version + 1)


class Levels(Protocol):
    """Levels by SKU, an empty one for a SKU that was never stocked."""

    def __getitem__(self, sku: str, /) -> Level: ...


@dataclass(frozen=True, slots=True)
class Movement:
    """One change of one SKU at one location: what it added to (or, negative, took from) units on hand and reserved."""

    sku: str
    location: str
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


@dataclass(frozen=True, slots=True)
class RanLow:
    """A SKU that was in stock is low or out now: somebody has to buy more."""

    sku: str
    available: int
    low_stock: int
    version: int


Flip = AvailabilityChanged | RanLow


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
        here = level.at.get(movement.location, NONE)
        units = Units(here.on_hand + movement.on_hand, here.reserved + movement.reserved)
        self._now[level.sku] = replace(level, at={**level.at, movement.location: units})
        self._moved_by[level.sku] = by
        self.movements.append(movement)

    def configure(self, settings: "Settings") -> None:
        level = self[settings.sku]
        self._now[level.sku] = replace(
            level,
            safety_stock=level.safety_stock if settings.safety_stock is None else settings.safety_stock,
            low_stock=level.low_stock if settings.low_stock is None else settings.low_stock,
        )

    def changed(self, touched: Iterable[str] = ()) -> list[Level]:
        """The final levels of what moved or was `touched`, availability announced, by SKU."""
        skus = sorted(self._now.keys() | set(touched))
        return [level for sku in skus if (level := self[sku].announced()) != self.before.get(sku)]

    def flips(self, levels: Iterable[Level]) -> list[tuple[Flip, int]]:
        """The flips among `levels`, each with the index of the command that moved its SKU last."""
        flips: list[tuple[Flip, int]] = []
        for level in levels:
            before = self.before.get(level.sku) or Level(level.sku)
            version, by = level.availability_version, self._moved_by.get(level.sku, 0)
            if level.availability and version != before.availability_version:
                flips.append((AvailabilityChanged(level.sku, level.availability, version), by))
                if before.availability is Availability.IN_STOCK:
                    flips.append((RanLow(level.sku, level.available, level.low_stock, version), by))
        return flips


@dataclass(frozen=True, slots=True)
class Count:
    """Units of one SKU found at one location."""

    sku: str
    on_hand: int
    location: str = MAIN


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Units of one SKU to add at one location, or to take when negative."""

    sku: str
    delta: int
    reason: str = ""
    location: str = MAIN


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one SKU; None leaves a setting as it is."""

    sku: str
    safety_stock: int | None = None
    low_stock: int | None = None


def count(levels: Mapping[str, Level], counts: Sequence[Count], operation_id: str) -> Tally:
    """Set units on hand, all or none.

    Raises FailedPrecondition if a location would have less than is reserved there.
    """
    tally = Tally(levels)
    _refuse_impossible(tally, [(c.sku, c.location, c.on_hand) for c in counts])
    for c in counts:
        if delta := c.on_hand - tally[c.sku].at.get(c.location, NONE).on_hand:
            tally.move(Movement(c.sku, c.location, Kind.COUNT, on_hand=delta, operation_id=operation_id))
    return tally


def adjust(
    levels: Mapping[str, Level], adjustments: Sequence[Adjustment], operation_id: str, kind: Kind = Kind.ADJUST
) -> Tally:
    """Add and take units, all or none.

    Raises FailedPrecondition if a location would have less than is reserved there.
    """
    tally = Tally(levels)
    wanted = [(a.sku, a.location, tally[a.sku].at.get(a.location, NONE).on_hand + a.delta) for a in adjustments]
    _refuse_impossible(tally, wanted)
    for a in adjustments:
        tally.move(Movement(a.sku, a.location, kind, on_hand=a.delta, operation_id=operation_id, reason=a.reason))
    return tally


def configure(levels: Mapping[str, Level], settings: Sequence[Settings]) -> Tally:
    """Change settings: what a shopper is told may flip by them."""
    tally = Tally(levels)
    for one in settings:
        tally.configure(one)
    return tally


def _refuse_impossible(levels: Levels, wanted: Sequence[tuple[str, str, int]]) -> None:
    faults = []
    for sku, location, units in wanted:
        reserved = levels[sku].at.get(location, NONE).reserved
        where = "" if location == MAIN else f" at {location}"
        if units < reserved:
            faults.append(f"{sku} would have {units} with {reserved} reserved{where}")
        elif units > MAX_UNITS:
            faults.append(f"{sku} would have {units}{where}, over {MAX_UNITS}")
    if faults:
        text = "nothing was changed"
        for index, fault in enumerate(faults):
            if len(text) > _LONGEST_ERROR:
                text += f"; and {len(faults) - index} more"
                break
            text += f"; {fault}"
        raise FailedPrecondition(text, reason="STOCK_BELOW_RESERVED")
