"""What each command does to holds and levels: every cell of the table, then any order of anything."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from chassis.errors import FailedPrecondition
from inventory_svc.domain.reservations import (
    Change,
    Command,
    Commit,
    Committed,
    Event,
    Hold,
    HoldState,
    Line,
    Rejected,
    Release,
    Released,
    Reserve,
    Reserved,
    Shortage,
    decide,
    skus_of,
)
from inventory_svc.domain.stock import (
    Adjustment,
    Availability,
    AvailabilityChanged,
    Kind,
    Level,
    Movement,
    adjust,
    count,
)

LINES = (Line("A", 2), Line("B", 1))


class Shelf:
    """The rows as they would be stored: written by changes only."""

    def __init__(self, **on_hand: int):
        self.levels: dict[str, Level] = {}
        self.holds: dict[str, Hold] = {}
        self.movements: list[Movement] = []
        self.events: list[Event] = []
        if on_hand:
            self.count(on_hand)

    def count(self, counts: dict[str, int]) -> None:
        levels = {sku: self.levels.get(sku, Level(sku)) for sku in counts}
        self._write(Change.of(count(levels, counts, "op"), list(counts)))

    def adjust(self, adjustments: Sequence[Adjustment]) -> None:
        levels = {a.sku: self.levels.get(a.sku, Level(a.sku)) for a in adjustments}
        self._write(Change.of(adjust(levels, adjustments, "op"), [a.sku for a in adjustments]))

    def handle(self, *commands: Command, crash: bool = False) -> list[Event]:
        """The answers, in the commands' order."""
        holds = {c.order_id: self.holds.get(c.order_id, Hold(c.order_id)) for c in commands}
        skus = skus_of(commands, holds)
        change = decide(commands, holds, {sku: self.levels[sku] for sku in skus if sku in self.levels})
        if not crash:
            self._write(change)
        return [event for event, _ in change.events][: len(commands)]

    def _write(self, change: Change) -> None:
        assert len({level.sku for level in change.levels}) == len(change.levels)
        assert len({hold.order_id for hold in change.holds}) == len(change.holds)
        self.levels |= {level.sku: level for level in change.levels}
        for hold in change.holds:
            assert hold.state is not HoldState.NEW
            self.holds[hold.order_id] = hold
        self.movements += change.movements
        self.events += [event for event, _ in change.events]

    def units(self, sku: str) -> tuple[int, int]:
        return self.levels[sku].on_hand, self.levels[sku].reserved


RESERVE, COMMIT, RELEASE = Reserve("o", LINES), Commit("o"), Release("o")
SHORT = Rejected("o", (Shortage("A", 2, 1),))


@pytest.mark.parametrize(
    ("stock", "history", "command", "answer", "units"),
    [
        (5, (), RESERVE, Reserved("o"), (5, 2)),
        (1, (), RESERVE, SHORT, (1, 0)),
        (5, (), RELEASE, Released("o"), (5, 0)),
        (1, (RESERVE,), RESERVE, SHORT, (1, 0)),
        (1, (RESERVE,), RELEASE, Released("o"), (1, 0)),
        (5, (RESERVE,), RESERVE, Reserved("o"), (5, 2)),
        (5, (RESERVE,), COMMIT, Committed("o"), (3, 0)),
        (5, (RESERVE,), RELEASE, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT), RESERVE, Reserved("o"), (3, 0)),
        (5, (RESERVE, COMMIT), COMMIT, Committed("o"), (3, 0)),
        (5, (RESERVE, COMMIT), RELEASE, Released("o"), (5, 0)),
        (5, (RELEASE,), RESERVE, Rejected("o"), (5, 0)),
        (5, (RESERVE, RELEASE), RESERVE, Rejected("o"), (5, 0)),
        (1, (RESERVE, RELEASE), RESERVE, Rejected("o"), (1, 0)),
        (5, (RESERVE, RELEASE), COMMIT, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT, RELEASE), COMMIT, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT, RELEASE), RELEASE, Released("o"), (5, 0)),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["apart", "one batch"])
def test_a_command_after_a_history(
    stock: int,
    history: tuple[Command, ...],
    command: Command,
    answer: Event,
    units: tuple[int, int],
    together: bool,
) -> None:
    shelf = Shelf(A=stock, B=9)
    if together:
        *_, got = shelf.handle(*history, command)
    else:
        for earlier in history:
            shelf.handle(earlier)
        (got,) = shelf.handle(command)
    assert got == answer
    assert shelf.units("A") == units


@pytest.mark.parametrize("history", [(), (Reserve("o", (Line("A", 9),)),)])
def test_a_commit_of_what_was_never_reserved_is_refused(history: tuple[Command, ...]) -> None:
    shelf = Shelf(A=5)
    if history:
        shelf.handle(*history)
    with pytest.raises(FailedPrecondition, match="no reserved stock"):
        shelf.handle(COMMIT)


def test_orders_of_one_batch_share_what_there_is_in_their_order() -> None:
    shelf = Shelf(A=10)
    answers = shelf.handle(*(Reserve(str(n), (Line("A", 4),)) for n in range(3)), Release("0"), Reserve("3", LINES[:1]))
    assert [type(a) for a in answers] == [Reserved, Reserved, Rejected, Released, Reserved]
    assert answers[2] == Rejected("2", (Shortage("A", 4, 2),))
    assert shelf.units("A") == (10, 6)


def test_an_order_gets_all_its_lines_or_none_and_hears_of_every_shortage() -> None:
    shelf = Shelf(A=5, B=0)
    wanted = Reserve("o", (Line("A", 6), Line("B", 1), Line("unheard of", 3)))
    assert shelf.handle(wanted) == [
        Rejected("o", (Shortage("A", 6, 5), Shortage("B", 1, 0), Shortage("unheard of", 3, 0)))
    ]
    assert shelf.units("A") == (5, 0)


def test_availability_is_announced_when_it_flips_and_not_before() -> None:
    shelf = Shelf(A=8)
    shelf.handle(Reserve("1", (Line("A", 2),)))
    shelf.handle(Reserve("2", (Line("A", 1),)))
    shelf.handle(Reserve("3", (Line("A", 5),)))
    shelf.handle(Commit("3"))
    shelf.handle(Release("3"))
    # Down and up again within one batch is no flip.
    shelf.handle(Reserve("4", (Line("A", 5),)), Release("4"))
    shelf.adjust([Adjustment("A", 1)])
    flips = [(e.availability, e.version) for e in shelf.events if isinstance(e, AvailabilityChanged)]
    assert flips == [
        (Availability.IN_STOCK, 1),
        (Availability.LOW, 2),
        (Availability.OUT, 3),
        (Availability.LOW, 4),
        (Availability.IN_STOCK, 5),
    ]


def test_a_sku_first_counted_as_none_is_announced_as_out() -> None:
    shelf = Shelf(A=0)
    assert shelf.events == [AvailabilityChanged("A", Availability.OUT, 1)]
    assert shelf.movements == []


def test_what_would_go_below_its_reservations_is_refused_with_every_name() -> None:
    shelf = Shelf(A=5, B=5, C=5)
    shelf.handle(Reserve("o", (Line("A", 2), Line("B", 3))))
    with pytest.raises(FailedPrecondition, match=r"A would have 1 with 2 reserved.*B would have 0 with 3") as failure:
        shelf.count({"A": 1, "B": 0, "C": 0})
    assert failure.value.reason == "STOCK_BELOW_RESERVED"
    with pytest.raises(FailedPrecondition, match=r"D would have -1 with 0 reserved"):
        shelf.adjust([Adjustment("C", 1), Adjustment("D", -1)])
    assert shelf.units("C") == (5, 0)


def test_an_error_about_very_many_skus_fits_a_header() -> None:
    shelf = Shelf()
    with pytest.raises(FailedPrecondition, match=r"and 19\d\d more") as failure:
        shelf.adjust([Adjustment(f"{n:0128}", -1) for n in range(2_000)])
    assert len(str(failure.value)) < 2_000


SKUS = st.sampled_from("ABC")
LINE_SETS = st.dictionaries(SKUS, st.integers(1, 7), min_size=1).map(
    lambda wanted: tuple(Line(sku, quantity) for sku, quantity in sorted(wanted.items()))
)


class AnyOrderOfAnything(RuleBasedStateMachine):
    """Commands come late, twice, in any order and in any batches, and the service dies before it commits."""

    orders = Bundle("orders")

    @initialize()
    def open(self) -> None:
        self.shelf = Shelf(A=9, B=4, C=1)
        self.wishes: dict[str, Reserve] = {}

    @rule(target=orders, lines=LINE_SETS)
    def order(self, lines: tuple[Line, ...]) -> str:
        order_id = str(len(self.wishes))
        self.wishes[order_id] = Reserve(order_id, lines)
        return order_id

    @rule(
        data=st.data(),
        chosen=st.lists(st.tuples(orders, st.sampled_from(["reserve", "commit", "release"])), min_size=1, max_size=6),
        crash=st.booleans(),
    )
    def batch(self, data: st.DataObject, chosen: list[tuple[str, str]], crash: bool) -> None:
        make = {"reserve": self.wishes.__getitem__, "commit": Commit, "release": Release}
        commands: list[Command] = [make[what](order_id) for order_id, what in chosen]
        if any(isinstance(c, Commit) and not self._was_reserved(c.order_id, commands) for c in commands):
            return
        one_by_one = Shelf()
        one_by_one.__dict__ |= {k: v.copy() for k, v in self.shelf.__dict__.items()}
        expected = [one_by_one.handle(command)[0] for command in commands]
        before = {name: list(value) for name, value in vars(self.shelf).items()}
        assert self.shelf.handle(*commands, crash=crash) == expected
        if crash:
            assert before == {name: list(value) for name, value in vars(self.shelf).items()}
        else:
            assert self.shelf.holds == one_by_one.holds
            strip = {s: (v.on_hand, v.reserved, v.availability) for s, v in self.shelf.levels.items()}
            assert strip == {s: (v.on_hand, v.reserved, v.availability) for s, v in one_by_one.levels.items()}

    def _was_reserved(self, order_id: str, commands: list[Command]) -> bool:
        """Only a saga that heard StockReserved commits."""
        hold = self.shelf.holds.get(order_id)
        return hold is not None and hold.state in (HoldState.RESERVED, HoldState.COMMITTED, HoldState.RELEASED)

    @rule(sku=SKUS, delta=st.integers(-5, 5).filter(bool))
    def adjust(self, sku: str, delta: int) -> None:
        before = replace(self.shelf.levels[sku])
        try:
            self.shelf.adjust([Adjustment(sku, delta)])
        except FailedPrecondition:
            assert before.on_hand + delta < before.reserved
            assert self.shelf.levels[sku] == before

    @rule(sku=SKUS, units=st.integers(0, 12))
    def count(self, sku: str, units: int) -> None:
        before = self.shelf.levels[sku]
        try:
            self.shelf.count({sku: units})
        except FailedPrecondition:
            assert units < before.reserved

    @invariant()
    def nothing_is_negative_or_oversold(self) -> None:
        assert all(0 <= level.reserved <= level.on_hand for level in self.shelf.levels.values())

    @invariant()
    def levels_are_the_sums_of_movements(self) -> None:
        on_hand, reserved = Counter[str](), Counter[str]()
        for move in self.shelf.movements:
            on_hand[move.sku] += move.on_hand
            reserved[move.sku] += move.reserved
        for sku in self.shelf.levels:
            assert self.shelf.units(sku) == (on_hand[sku], reserved[sku])

    @invariant()
    def reserved_is_the_sum_of_open_reservations(self) -> None:
        wanted = Counter[str]()
        for hold in self.shelf.holds.values():
            for line in hold.lines if hold.state is HoldState.RESERVED else ():
                wanted[line.sku] += line.quantity
        assert all(level.reserved == wanted[sku] for sku, level in self.shelf.levels.items())

    @invariant()
    def an_order_moves_a_sku_once_in_each_way(self) -> None:
        moves = Counter((m.order_id, m.sku, m.kind) for m in self.shelf.movements if m.order_id)
        assert not moves or max(moves.values()) == 1

    @invariant()
    def a_hold_has_all_its_lines_or_none(self) -> None:
        for hold in self.shelf.holds.values():
            assert hold.lines in ((), self.wishes[hold.order_id].lines)

    @invariant()
    def announced_versions_have_no_gaps(self) -> None:
        versions: dict[str, list[int]] = {}
        for event in self.shelf.events:
            if isinstance(event, AvailabilityChanged):
                versions.setdefault(event.sku, []).append(event.version)
        for sku, seen in versions.items():
            assert seen == list(range(1, len(seen) + 1))
            assert self.shelf.levels[sku].availability_version == seen[-1]
            assert self.shelf.levels[sku].availability is Availability.of(self.shelf.levels[sku].available)


AnyOrderOfAnything.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
test_any_order_of_anything = AnyOrderOfAnything.TestCase


def test_kinds_are_those_the_schema_allows() -> None:
    from importlib import resources

    sql = (resources.files("inventory_svc") / "migrations" / "0001_stock.sql").read_text()
    assert all(f"'{kind}'" in sql for kind in (*Kind, *HoldState, *Availability))
