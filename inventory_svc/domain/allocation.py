"""Which location serves what of an order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inventory_svc.domain.stock import Level, Levels


@dataclass(frozen=True, slots=True)
class Line:
    """Units of one SKU, over 0."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True, order=True)
class Allocation:
    """Units of one SKU at one location, over 0."""

    sku: str
    location: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """A SKU that couldn't be had in the quantity wanted, and what was available then."""

    sku: str
    wanted: int
    available: int


def allocate(
    lines: Sequence[Line], levels: Levels, locations: Sequence[str]
) -> tuple[tuple[Allocation, ...], tuple[Shortage, ...]]:
    """All lines of an order, allocated; or none of them, and every shortage. Each SKU stands on one line.

    `locations` are all there are, by priority. As few parcels as can be had without searching for the best split:

    1. The first location that has every line whole serves the order.
    2. Otherwise each line is served by the first location that has it whole.
    3. What no location has whole is taken from each location in turn, as far as it goes.

    A line is short if it wants more than is available over all locations, which leaves the safety stock alone; where
    that lies doesn't matter, so one location may give its last unit while others keep more.
    """
    short = tuple(
        Shortage(line.sku, line.quantity, available)
        for line in lines
        if line.quantity > (available := levels[line.sku].available)
    )
    if short:
        return (), short
    for location in locations:
        if all(levels[line.sku].free(location) >= line.quantity for line in lines):
            return tuple(Allocation(line.sku, location, line.quantity) for line in lines), ()
    return tuple(part for line in lines for part in _split(line, levels[line.sku], locations)), ()


def _split(line: Line, level: Level, locations: Sequence[str]) -> Iterator[Allocation]:
    whole = next((location for location in locations if level.free(location) >= line.quantity), None)
    if whole is not None:
        yield Allocation(line.sku, whole, line.quantity)
        return
    left = line.quantity
    for location in locations:
        if taken := min(left, level.free(location)):
            yield Allocation(line.sku, location, taken)
            left -= taken
