"""Holding stock for orders: what each command does, by what has happened to its order before.

    hold      ReserveStock               CommitStock          ReleaseStock              RestockStock
    ────────  ─────────────────────────  ───────────────────  ────────────────────────  ─────────────────────────
    none      all lines or none:         refused (raises)     RELEASED                  refused (raises)
              RESERVED or REJECTED
    REJECTED  StockRejected again        refused (raises)     RELEASED                  refused (raises)
    RESERVED  StockReserved again        COMMITTED: units     RELEASED: reservation     refused (raises)
                                         leave                freed
    COMMITTED StockReserved again        StockCommitted again RELEASED: units put back  units put back, of what
                                                              that weren't returned     the order took at most
    RELEASED  StockRejected, no shortage StockReleased again  StockReleased again       StockRestocked, no units

Every command is answered, a repeated one with the outcome that stands. Released is final. A restock is known by its
operation's id within its order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from chassis.errors import AlreadyExists, FailedPrecondition
from inventory_svc.domain.allocation import Allocation, Line, Shortage, allocate
from inventory_svc.domain.locations import unknown_locations
from inventory_svc.domain.stock import Flip, Kind, Level, Movement, Tally


class HoldState(StrEnum):
    NEW = "NEW"
    RESERVED = "RESERVED"
    REJECTED = "REJECTED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held for one order: `allocations`, sorted, are what it reserved, also where that has left or
    was freed; `returned` is what came back of that, by operation."""

    order_id: str
    state: HoldState = HoldState.NEW
    allocations: tuple[Allocation, ...] = ()
    shortages: tuple[Shortage, ...] = ()
    returned: Mapping[str, tuple[Allocation, ...]] = field(default_factory=dict)

    def taken(self) -> list[Allocation]:
        """What it reserved less what came back, taken off the first of several locations first."""
        back = Counter[str]()
        for part in self.returned.values():
            for one in part:
                back[one.sku] += one.quantity
        left = []
        for one in self.allocations:
            gone = min(back[one.sku], one.quantity)
            back[one.sku] -= gone
            if one.quantity > gone:
                left.append(replace(one, quantity=one.quantity - gone))
        return left


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


@dataclass(frozen=True, slots=True)
class Restock:
    """Returned units of an order. Without a `location` they go where the order's units of their SKU came from,
    of several the first."""

    order_id: str
    operation_id: str
    lines: tuple[Line, ...]
    location: str = ""


Command = Reserve | Commit | Release | Restock


@dataclass(frozen=True, slots=True)
class Reserved:
    order_id: str
    allocations: tuple[Allocation, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Restocked:
    order_id: str
    operation_id: str
    allocations: tuple[Allocation, ...] = ()


Answer = Reserved | Rejected | Committed | Released | Restocked
Event = Answer | Flip


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
    skus.update(one.sku for hold in holds.values() for one in hold.allocations)
    return sorted(skus)


def decide(
    commands: Sequence[Command], holds: Mapping[str, Hold], levels: Mapping[str, Level], locations: Sequence[str]
) -> Change:
    """Carry out the commands in turn over running totals: an order gets all its lines or none.

    `holds` are those of the commands' orders, `levels` those of `skus_of`, `locations` all there are, by priority.
    Raises FailedPrecondition for a commit of what was never reserved and for a restock of more than was taken,
    NotFound for one to no location, AlreadyExists for one whose id was used for another.
    """
    tally = Tally(levels)
    now: dict[str, Hold] = {}
    reserved: list[Hold] = []
    events: list[tuple[Event, int]] = []
    for index, command in enumerate(commands):
        before = now.get(command.order_id) or holds.get(command.order_id) or Hold(command.order_id)
        after, event = _decide(command, before, tally, index, locations)
        events.append((event, index))
        if after is not before:
            now[command.order_id] = after
        if before.state is HoldState.NEW and after.state is HoldState.RESERVED:
            reserved.append(after)
    changed = tally.changed()
    events.extend(tally.flips(changed))
    return Change(changed, tally.movements, events, list(now.values()), reserved)


def _decide(command: Command, hold: Hold, tally: Tally, index: int, locations: Sequence[str]) -> tuple[Hold, Answer]:
    match command, hold.state:
        case Reserve(), HoldState.NEW:
            return _reserve(command, tally, index, locations)
        case Reserve(), HoldState.REJECTED:
            return hold, Rejected(hold.order_id, hold.shortages)
        case Reserve(), HoldState.RESERVED | HoldState.COMMITTED:
            return hold, Reserved(hold.order_id, hold.allocations)
        case Reserve(), HoldState.RELEASED:
            return hold, Rejected(hold.order_id)
        case Commit(), HoldState.RESERVED:
            for one in hold.allocations:
                _move(one, Kind.COMMIT, hold, tally, index, on_hand=-one.quantity, reserved=-one.quantity)
            return replace(hold, state=HoldState.COMMITTED), Committed(hold.order_id)
        case Commit(), HoldState.COMMITTED:
            return hold, Committed(hold.order_id)
        case Commit(), HoldState.NEW | HoldState.REJECTED:
            message = f"order {hold.order_id} has no reserved stock to commit"
            raise FailedPrecondition(message, reason="NOTHING_RESERVED")
        case Release(), HoldState.RESERVED:
            for one in hold.allocations:
                _move(one, Kind.RELEASE, hold, tally, index, reserved=-one.quantity)
        case Release(), HoldState.COMMITTED:
            for one in hold.taken():
                _move(one, Kind.RELEASE, hold, tally, index, on_hand=one.quantity)
        case Restock(), _:
            return _restock(command, hold, tally, index, locations)
    if hold.state is not HoldState.RELEASED:
        hold = replace(hold, state=HoldState.RELEASED)
    return hold, Released(hold.order_id)


def _reserve(command: Reserve, tally: Tally, index: int, locations: Sequence[str]) -> tuple[Hold, Answer]:
    allocations, shortages = allocate(command.lines, tally, locations)
    allocations = tuple(sorted(allocations))
    if shortages:
        hold = Hold(command.order_id, HoldState.REJECTED, shortages=shortages)
        return hold, Rejected(command.order_id, shortages)
    hold = Hold(command.order_id, HoldState.RESERVED, allocations)
    for one in allocations:
        _move(one, Kind.RESERVE, hold, tally, index, reserved=one.quantity)
    return hold, Reserved(command.order_id, allocations)


def _restock(command: Restock, hold: Hold, tally: Tally, index: int, locations: Sequence[str]) -> tuple[Hold, Answer]:
    if (known := hold.returned.get(command.operation_id)) is not None:
        if not _same(command, known):
            message = f"operation {command.operation_id} of order {hold.order_id} was another restock"
            raise AlreadyExists(message, reason="REQUEST_ID_REUSED")
        return hold, Restocked(hold.order_id, command.operation_id, known)
    if hold.state is HoldState.RELEASED:
        return hold, Restocked(hold.order_id, command.operation_id)
    if hold.state is not HoldState.COMMITTED:
        raise FailedPrecondition(f"order {hold.order_id} took no stock that could come back", reason="NOTHING_TAKEN")
    if command.location and command.location not in locations:
        raise unknown_locations([command.location])
    taken = Counter[str]()
    for one in hold.taken():
        taken[one.sku] += one.quantity
    if more := [line for line in command.lines if line.quantity > taken[line.sku]]:
        named = "; ".join(f"{line.quantity} of {line.sku}, which has {taken[line.sku]}" for line in more[:5])
        message = f"order {hold.order_id} can't return {named}"
        raise FailedPrecondition(message, reason="RETURN_EXCEEDS_ORDER")
    came_from = {one.sku: one.location for one in reversed(hold.allocations)}
    back = tuple(Allocation(line.sku, command.location or came_from[line.sku], line.quantity) for line in command.lines)
    for one in back:
        _move(one, Kind.RESTOCK, hold, tally, index, on_hand=one.quantity, operation_id=command.operation_id)
    hold = replace(hold, returned={**hold.returned, command.operation_id: back})
    return hold, Restocked(hold.order_id, command.operation_id, back)


def _same(command: Restock, known: Sequence[Allocation]) -> bool:
    wanted = {line.sku: line.quantity for line in command.lines}
    elsewhere = command.location and any(one.location != command.location for one in known)
    return wanted == {one.sku: one.quantity for one in known} and not elsewhere


def _move(
    one: Allocation,
    kind: Kind,
    hold: Hold,
    tally: Tally,
    index: int,
    *,
    on_hand: int = 0,
    reserved: int = 0,
    operation_id: str | None = None,
) -> None:
    movement = Movement(one.sku, one.location, kind, on_hand, reserved, hold.order_id, operation_id)
    tally.move(movement, by=index)
