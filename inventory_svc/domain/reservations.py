"""Holding stock for orders: what each command does, by what has happened to its order before.

    hold      ReserveStock               CommitStock          ReleaseStock
    ────────  ─────────────────────────  ───────────────────  ─────────────────────────
    none      all lines or none:         refused (raises)     RELEASED
              RESERVED or REJECTED
    REJECTED  StockRejected again        refused (raises)     RELEASED
    RESERVED  StockReserved again        COMMITTED: units     RELEASED: reservation
                                         leave                freed
    COMMITTED StockReserved again        StockCommitted again RELEASED: units put back
    RELEASED  StockRejected, no shortage StockReleased again  StockReleased again

Every command is answered, a repeated one with the outcome that stands. Released is final.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from chassis.errors import FailedPrecondition
from inventory_svc.domain.stock import AvailabilityChanged, Kind, Level, Movement, Tally


class HoldState(StrEnum):
    NEW = "NEW"
    RESERVED = "RESERVED"
    REJECTED = "REJECTED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Line:
    """Units of one SKU, over 0."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """A SKU that couldn't be had in the quantity wanted, and what was available then."""

    sku: str
    wanted: int
    available: int


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held for one order. `lines` are those it reserved, also where they have left or were freed."""

    order_id: str
    state: HoldState = HoldState.NEW
    lines: tuple[Line, ...] = ()
    shortages: tuple[Shortage, ...] = ()


@dataclass(frozen=True, slots=True)
class Reserve:
    order_id: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    order_id: str


@dataclass(frozen=True, slots=True)
class Release:
    order_id: str


Command = Reserve | Commit | Release


@dataclass(frozen=True, slots=True)
class Reserved:
    order_id: str


@dataclass(frozen=True, slots=True)
class Rejected:
    order_id: str
    shortages: tuple[Shortage, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    order_id: str


@dataclass(frozen=True, slots=True)
class Released:
    order_id: str


Event = Reserved | Rejected | Committed | Released | AvailabilityChanged


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction writes. Each event comes with the index of the command that caused it."""

    levels: Sequence[Level]
    movements: Sequence[Movement]
    events: Sequence[tuple[Event, int]]
    holds: Sequence[Hold] = ()
    reserved: Sequence[Hold] = ()

    @classmethod
    def of(cls, tally: Tally, touched: Sequence[str]) -> "Change":
        """A change without reservations."""
        levels = tally.changed(touched)
        return cls(levels, tally.movements, tally.flips(levels))


def skus_of(commands: Sequence[Command], holds: Mapping[str, Hold]) -> list[str]:
    """The SKUs that `decide` may move, sorted."""
    skus = {line.sku for c in commands if isinstance(c, Reserve) for line in c.lines}
    skus.update(line.sku for hold in holds.values() for line in hold.lines)
    return sorted(skus)


def decide(commands: Sequence[Command], holds: Mapping[str, Hold], levels: Mapping[str, Level]) -> Change:
    """Carry out the commands in turn over running totals: an order gets all its lines or none.

    `holds` are those of the commands' orders, `levels` those of `skus_of`. Raises FailedPrecondition for a
    commit of what was never reserved.
    """
    tally = Tally(levels)
    now: dict[str, Hold] = {}
    reserved: list[Hold] = []
    events: list[tuple[Event, int]] = []
    for index, command in enumerate(commands):
        before = now.get(command.order_id) or holds.get(command.order_id) or Hold(command.order_id)
        after, event = _decide(command, before, tally, index)
        events.append((event, index))
        if after is not before:
            now[command.order_id] = after
        if before.state is HoldState.NEW and after.state is HoldState.RESERVED:
            reserved.append(after)
    changed = tally.changed()
    events.extend(tally.flips(changed))
    return Change(changed, tally.movements, events, list(now.values()), reserved)


def _decide(command: Command, hold: Hold, tally: Tally, index: int) -> tuple[Hold, Event]:
    match command, hold.state:
        case Reserve(), HoldState.NEW:
            return _reserve(command, tally, index)
        case Reserve(), HoldState.REJECTED:
            return hold, Rejected(hold.order_id, hold.shortages)
        case Reserve(), HoldState.RESERVED | HoldState.COMMITTED:
            return hold, Reserved(hold.order_id)
        case Reserve(), HoldState.RELEASED:
            return hold, Rejected(hold.order_id)
        case Commit(), HoldState.RESERVED:
            _move(hold, Kind.COMMIT, tally, index, on_hand=-1, reserved=-1)
            return replace(hold, state=HoldState.COMMITTED), Committed(hold.order_id)
        case Commit(), HoldState.COMMITTED:
            return hold, Committed(hold.order_id)
        case Commit(), HoldState.NEW | HoldState.REJECTED:
            message = f"order {hold.order_id} has no reserved stock to commit"
            raise FailedPrecondition(message, reason="NOTHING_RESERVED")
        case Release(), HoldState.RESERVED:
            _move(hold, Kind.RELEASE, tally, index, reserved=-1)
        case Release(), HoldState.COMMITTED:
            _move(hold, Kind.RESTOCK, tally, index, on_hand=1)
    if hold.state is not HoldState.RELEASED:
        hold = replace(hold, state=HoldState.RELEASED)
    return hold, Released(hold.order_id)


def _reserve(command: Reserve, tally: Tally, index: int) -> tuple[Hold, Event]:
    shortages = tuple(
        Shortage(line.sku, line.quantity, tally[line.sku].available)
        for line in command.lines
        if line.quantity > tally[line.sku].available
    )
    if shortages:
        hold = Hold(command.order_id, HoldState.REJECTED, shortages=shortages)
        return hold, Rejected(command.order_id, shortages)
    hold = Hold(command.order_id, HoldState.RESERVED, command.lines)
    _move(hold, Kind.RESERVE, tally, index, reserved=1)
    return hold, Reserved(command.order_id)


def _move(hold: Hold, kind: Kind, tally: Tally, index: int, *, on_hand: int = 0, reserved: int = 0) -> None:
    for line in hold.lines:
        units = line.quantity
        tally.move(Movement(line.sku, kind, on_hand * units, reserved * units, hold.order_id), by=index)
