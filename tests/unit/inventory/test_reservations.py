"""What each command does to holds and levels: every cell of the table, then any order of anything."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from chassis.errors import AlreadyExists, FailedPrecondition, NotFound, PolymartError
from inventory_svc.domain.allocation import Allocation, Line, Shortage
from inventory_svc.domain.reservations import (
    Command,
    Commit,
    Committed,
    Event,
    HoldState,
    Rejected,
    Release,
    Released,
    Reserve,
    Reserved,
    Restock,
    Restocked,
)
from inventory_svc.domain.stock import (
    MAIN,
    NONE,
    Adjustment,
    Availability,
    AvailabilityChanged,
    Kind,
    RanLow,
    Settings,
)
from tests.unit.inventory.shelf import LOCATIONS, Shelf

LINES = (Line("A", 2), Line("B", 1))
HELD = (Allocation("A", MAIN, 2), Allocation("B", MAIN, 1))

RESERVE, COMMIT, RELEASE = Reserve("o", LINES), Commit("o"), Release("o")
RESERVED = Reserved("o", HELD)
RETURN_1, RETURN_2 = (Restock("o", f"return {n}", (Line("A", n),)) for n in (1, 2))
BACK_1, BACK_2 = (Restocked("o", f"return {n}", (Allocation("A", MAIN, n),)) for n in (1, 2))
SHORT = Rejected("o", (Shortage("A", 2, 1),))


@pytest.mark.parametrize(
    ("stock", "history", "command", "answer", "units"),
    [
        (5, (), RESERVE, RESERVED, (5, 2)),
        (1, (), RESERVE, SHORT, (1, 0)),
        (5, (), RELEASE, Released("o"), (5, 0)),
        (1, (RESERVE,), RESERVE, SHORT, (1, 0)),
        (1, (RESERVE,), RELEASE, Released("o"), (1, 0)),
        (5, (RESERVE,), RESERVE, RESERVED, (5, 2)),
        (5, (RESERVE,), COMMIT, Committed("o"), (3, 0)),
        (5, (RESERVE,), RELEASE, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT), RESERVE, RESERVED, (3, 0)),
        (5, (RESERVE, COMMIT), COMMIT, Committed("o"), (3, 0)),
        (5, (RESERVE, COMMIT), RELEASE, Released("o"), (5, 0)),
        (5, (RELEASE,), RESERVE, Rejected("o"), (5, 0)),
        (5, (RESERVE, RELEASE), RESERVE, Rejected("o"), (5, 0)),
        (1, (RESERVE, RELEASE), RESERVE, Rejected("o"), (1, 0)),
        (5, (RESERVE, RELEASE), COMMIT, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT, RELEASE), COMMIT, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT, RELEASE), RELEASE, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT), RETURN_1, BACK_1, (4, 0)),
        (5, (RESERVE, COMMIT, RETURN_1), RETURN_1, BACK_1, (4, 0)),
        (5, (RESERVE, COMMIT), RETURN_2, BACK_2, (5, 0)),
        (5, (RESERVE, COMMIT, RETURN_1), COMMIT, Committed("o"), (4, 0)),
        (5, (RESERVE, COMMIT, RETURN_1), RESERVE, RESERVED, (4, 0)),
        (5, (RESERVE, COMMIT, RETURN_1), RELEASE, Released("o"), (5, 0)),
        (5, (RESERVE, COMMIT, RETURN_1, RELEASE), RETURN_1, BACK_1, (5, 0)),
        (5, (RESERVE, COMMIT, RELEASE), RETURN_1, Restocked("o", "return 1"), (5, 0)),
        (5, (RELEASE,), RETURN_1, Restocked("o", "return 1"), (5, 0)),
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


@pytest.mark.parametrize("history", [(), (Reserve("o", (Line("A", 9),)),), (RESERVE,)])
def test_a_restock_of_what_was_never_taken_is_refused(history: tuple[Command, ...]) -> None:
    shelf = Shelf(A=5, B=5)
    if history:
        shelf.handle(*history)
    with pytest.raises(FailedPrecondition, match="took no stock") as failure:
        shelf.handle(RETURN_1)
    assert failure.value.reason == "NOTHING_TAKEN"


def test_no_more_comes_back_than_the_order_took_and_every_excess_is_named() -> None:
    shelf = Shelf(A=5, B=5)
    shelf.handle(RESERVE, COMMIT, RETURN_1)
    with pytest.raises(FailedPrecondition, match=r"2 of A, which has 1; 1 of C, which has 0") as failure:
        shelf.handle(Restock("o", "another", (Line("A", 2), Line("B", 1), Line("C", 1))))
    assert failure.value.reason == "RETURN_EXCEEDS_ORDER"
    assert shelf.units("B") == (4, 0)


def test_an_operation_of_a_restock_means_one_thing() -> None:
    shelf = Shelf(A=5, B=5)
    shelf.handle(RESERVE, COMMIT, RETURN_1)
    for other in (replace(RETURN_1, lines=(Line("A", 2),)), replace(RETURN_1, location="north")):
        with pytest.raises(AlreadyExists, match="was another restock"):
            shelf.handle(other)
    assert shelf.handle(replace(RETURN_1, location=MAIN)) == [BACK_1]


def test_returned_units_lie_where_the_command_says() -> None:
    shelf = Shelf(A=5, B=5)
    shelf.handle(RESERVE, COMMIT, replace(RETURN_1, location="attic"))
    assert {name: units.on_hand for name, units in shelf.levels["A"].at.items()} == {MAIN: 3, "attic": 1}
    with pytest.raises(NotFound, match="cellar"):
        shelf.handle(Restock("o", "another", (Line("A", 1),), "cellar"))
    shelf.handle(RELEASE)
    assert {name: units.on_hand for name, units in shelf.levels["A"].at.items()} == {MAIN: 4, "attic": 1}


def test_an_order_over_several_locations_takes_from_each_what_it_held_there() -> None:
    shelf = Shelf(A=2)
    shelf.count({"A": 3}, "north")
    (answer,) = shelf.handle(Reserve("o", (Line("A", 4),)))
    assert answer == Reserved("o", (Allocation("A", MAIN, 2), Allocation("A", "north", 2)))
    shelf.handle(COMMIT)
    assert {name: (u.on_hand, u.reserved) for name, u in shelf.levels["A"].at.items()} == {
        MAIN: (0, 0),
        "north": (1, 0),
    }
    shelf.handle(Restock("o", "return", (Line("A", 3),)))
    # It came back where the order's first units came from; the release puts back the rest.
    shelf.handle(RELEASE)
    assert shelf.units("A") == (5, 0)
    assert shelf.levels["A"].at["north"].on_hand == 2


def test_safety_stock_is_kept_back_and_low_stock_is_each_skus_own() -> None:
    shelf = Shelf(A=10)
    shelf.configure(Settings("A", safety_stock=4))
    assert shelf.levels["A"].available == 6
    assert shelf.handle(Reserve("o", (Line("A", 7),))) == [Rejected("o", (Shortage("A", 7, 6),))]
    shelf.handle(Reserve("p", (Line("A", 6),)))
    assert shelf.levels["A"].availability is Availability.OUT
    shelf.configure(Settings("A", safety_stock=0, low_stock=3))
    assert (shelf.levels["A"].available, shelf.levels["A"].availability) == (4, Availability.IN_STOCK)
    shelf.configure(Settings("A", safety_stock=20))
    assert shelf.levels["A"].available == 0


def test_a_sku_runs_low_once_however_far_it_falls() -> None:
    shelf = Shelf(A=8, B=8)
    shelf.handle(Reserve("1", (Line("A", 4), Line("B", 8))))
    shelf.handle(Reserve("2", (Line("A", 2),)))
    shelf.handle(Release("1"))
    shelf.configure(Settings("A", low_stock=9))
    low = [event for event in shelf.events if isinstance(event, RanLow)]
    assert low == [RanLow("A", 4, 5, 2), RanLow("B", 0, 5, 2), RanLow("A", 6, 9, 4)]


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
PLACES = st.sampled_from(LOCATIONS)
LINE_SETS = st.dictionaries(SKUS, st.integers(1, 7), min_size=1).map(
    lambda wanted: tuple(Line(sku, quantity) for sku, quantity in sorted(wanted.items()))
)


class AnyOrderOfAnything(RuleBasedStateMachine):
    """Commands come late, twice, in any order and in any batches, and the service dies before it commits."""

    orders = Bundle("orders")

    @initialize()
    def open(self) -> None:
        self.shelf = Shelf(A=6, B=3, C=1)
        self.shelf.count({"A": 3, "B": 1}, "north")
        self.shelf.count({"A": 2}, "attic")
        self.wishes: dict[str, Reserve] = {}

    @rule(target=orders, lines=LINE_SETS)
    def order(self, lines: tuple[Line, ...]) -> str:
        order_id = str(len(self.wishes))
        self.wishes[order_id] = Reserve(order_id, lines)
        return order_id

    @rule(
        data=st.data(),
        chosen=st.lists(
            st.tuples(orders, st.sampled_from(["reserve", "commit", "release", "return"])), min_size=1, max_size=6
        ),
        crash=st.booleans(),
    )
    def batch(self, data: st.DataObject, chosen: list[tuple[str, str]], crash: bool) -> None:
        make = {"reserve": self.wishes.__getitem__, "commit": Commit, "release": Release}
        commands: list[Command] = [
            data.draw(self._returns(order_id)) if what == "return" else make[what](order_id)
            for order_id, what in chosen
        ]
        one_by_one = Shelf()
        one_by_one.__dict__ |= {k: v if k == "locations" else v.copy() for k, v in self.shelf.__dict__.items()}
        try:
            expected = [one_by_one.handle(command)[0] for command in commands]
        except PolymartError as one:
            # Alone or among others, what can't be done is refused and changes nothing.
            before = {name: list(value) for name, value in vars(self.shelf).items()}
            with pytest.raises(type(one), match=re.escape(str(one))):
                self.shelf.handle(*commands)
            assert before == {name: list(value) for name, value in vars(self.shelf).items()}
            return
        before = {name: list(value) for name, value in vars(self.shelf).items()}
        assert self.shelf.handle(*commands, crash=crash) == expected
        if crash:
            assert before == {name: list(value) for name, value in vars(self.shelf).items()}
        else:
            assert self.shelf.holds == one_by_one.holds
            strip = {s: (v.on_hand, v.reserved, v.availability) for s, v in self.shelf.levels.items()}
            assert strip == {s: (v.on_hand, v.reserved, v.availability) for s, v in one_by_one.levels.items()}

    def _returns(self, order_id: str) -> st.SearchStrategy[Restock]:
        """Few ids, so that some come again, with the same content or another."""
        return st.builds(
            Restock,
            st.just(order_id),
            st.sampled_from(["r1", "r2"]),
            st.dictionaries(SKUS, st.integers(1, 2), min_size=1, max_size=2).map(
                lambda wanted: tuple(Line(sku, quantity) for sku, quantity in sorted(wanted.items()))
            ),
            st.sampled_from(["", *LOCATIONS, "cellar"]),
        )

    @rule(sku=SKUS, safety_stock=st.integers(0, 4), low_stock=st.integers(0, 6))
    def configure(self, sku: str, safety_stock: int, low_stock: int) -> None:
        self.shelf.configure(Settings(sku, safety_stock, low_stock))

    @rule(sku=SKUS, delta=st.integers(-5, 5).filter(bool), location=PLACES)
    def adjust(self, sku: str, delta: int, location: str) -> None:
        before = replace(self.shelf.levels[sku])
        here = before.at.get(location, NONE)
        try:
            self.shelf.adjust([Adjustment(sku, delta, "why", location)])
        except FailedPrecondition:
            assert here.on_hand + delta < here.reserved
            assert self.shelf.levels[sku] == before

    @rule(sku=SKUS, units=st.integers(0, 12), location=PLACES)
    def count(self, sku: str, units: int, location: str) -> None:
        here = self.shelf.levels[sku].at.get(location, NONE)
        try:
            self.shelf.count({sku: units}, location)
        except FailedPrecondition:
            assert units < here.reserved

    @invariant()
    def nothing_is_negative_or_oversold(self) -> None:
        for level in self.shelf.levels.values():
            assert all(0 <= units.reserved <= units.on_hand for units in level.at.values())

    @invariant()
    def levels_are_the_sums_of_movements(self) -> None:
        on_hand, reserved = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for move in self.shelf.movements:
            on_hand[move.sku, move.location] += move.on_hand
            reserved[move.sku, move.location] += move.reserved
        for sku, level in self.shelf.levels.items():
            for location in LOCATIONS:
                units = level.at.get(location, NONE)
                assert (units.on_hand, units.reserved) == (on_hand[sku, location], reserved[sku, location])

    @invariant()
    def reserved_is_the_sum_of_open_reservations(self) -> None:
        held = Counter[tuple[str, str]]()
        for hold in self.shelf.holds.values():
            for one in hold.allocations if hold.state is HoldState.RESERVED else ():
                held[one.sku, one.location] += one.quantity
        for sku, level in self.shelf.levels.items():
            assert all(units.reserved == held[sku, location] for location, units in level.at.items())

    @invariant()
    def an_order_or_an_operation_moves_a_sku_once_in_each_way(self) -> None:
        moves = Counter((m.order_id, m.operation_id, m.sku, m.location, m.kind) for m in self.shelf.movements)
        ours = [times for (order_id, *_), times in moves.items() if order_id]
        assert not ours or max(ours) == 1

    @invariant()
    def an_order_keeps_what_it_took_less_what_came_back_and_a_released_one_nothing(self) -> None:
        taken = Counter[tuple[str, str]]()
        for move in self.shelf.movements:
            if move.order_id:
                taken[move.order_id, move.sku] -= move.on_hand
        for (order_id, sku), units in taken.items():
            hold = self.shelf.holds[order_id]
            left = sum(one.quantity for one in hold.taken() if one.sku == sku)
            assert units == (left if hold.state is HoldState.COMMITTED else 0)

    @invariant()
    def a_hold_has_all_its_lines_or_none(self) -> None:
        for hold in self.shelf.holds.values():
            held = Counter[str]()
            for one in hold.allocations:
                held[one.sku] += one.quantity
            wanted = {line.sku: line.quantity for line in self.wishes[hold.order_id].lines}
            assert dict(held) in ({}, wanted)
            assert list(hold.allocations) == sorted(hold.allocations)

    @invariant()
    def announced_versions_have_no_gaps(self) -> None:
        versions: dict[str, list[int]] = {}
        for event in self.shelf.events:
            if isinstance(event, AvailabilityChanged):
                versions.setdefault(event.sku, []).append(event.version)
        for sku, seen in versions.items():
            assert seen == list(range(1, len(seen) + 1))
            assert self.shelf.levels[sku].availability_version == seen[-1]
            assert self.shelf.levels[sku].availability is Availability.of(
                self.shelf.levels[sku].available, self.shelf.levels[sku].low_stock
            )


AnyOrderOfAnything.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
test_any_order_of_anything = AnyOrderOfAnything.TestCase


def test_kinds_are_those_the_schema_allows() -> None:
    from importlib import resources

    sql = (resources.files("inventory_svc") / "migrations" / "0001_stock.sql").read_text()
    assert all(f"'{kind}'" in sql for kind in (*Kind, *HoldState, *Availability))
