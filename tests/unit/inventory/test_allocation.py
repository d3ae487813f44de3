"""Which location serves what: examples to read, then properties of every answer."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from inventory_svc.domain.allocation import Allocation, Line, Shortage, allocate
from inventory_svc.domain.stock import Level, Units

LOCATIONS = ("near", "far", "attic")


def levels(safety_stock: int = 0, **free: dict[str, int]) -> dict[str, Level]:
    """Levels with so many units free at each location, beside three that are reserved."""
    return {
        sku: Level(sku, {name: Units(units + 3, 3) for name, units in at.items()}, safety_stock=safety_stock)
        for sku, at in free.items()
    }


def test_one_location_that_has_everything_serves_before_a_nearer_one_that_has_not() -> None:
    stock = levels(A={"near": 9, "far": 2}, B={"far": 1})
    parts, short = allocate([Line("A", 2), Line("B", 1)], stock, LOCATIONS)
    assert parts == (Allocation("A", "far", 2), Allocation("B", "far", 1))
    assert short == ()


def test_of_several_that_have_everything_the_first_serves() -> None:
    stock = levels(A={"attic": 5, "far": 5, "near": 1})
    assert allocate([Line("A", 2)], stock, LOCATIONS)[0] == (Allocation("A", "far", 2),)


def test_where_none_has_everything_each_line_comes_whole_where_it_can() -> None:
    stock = levels(A={"near": 1, "far": 2}, B={"near": 1, "attic": 1})
    parts, _ = allocate([Line("A", 2), Line("B", 1)], stock, LOCATIONS)
    assert parts == (Allocation("A", "far", 2), Allocation("B", "near", 1))


def test_a_line_that_none_has_whole_is_taken_by_priority() -> None:
    stock = levels(A={"attic": 3, "near": 2, "far": 1})
    parts, _ = allocate([Line("A", 4)], stock, LOCATIONS)
    assert parts == (Allocation("A", "near", 2), Allocation("A", "far", 1), Allocation("A", "attic", 1))


def test_safety_stock_is_kept_over_all_locations_and_not_in_each() -> None:
    stock = levels(safety_stock=3, A={"near": 4, "far": 4})
    assert allocate([Line("A", 5)], stock, LOCATIONS)[0] == (Allocation("A", "near", 4), Allocation("A", "far", 1))
    assert allocate([Line("A", 6)], stock, LOCATIONS) == ((), (Shortage("A", 6, 5),))


def test_one_short_line_means_no_line_at_all() -> None:
    stock = levels(A={"near": 4}, B={"near": 1})
    assert allocate([Line("A", 1), Line("B", 2)], stock, LOCATIONS) == ((), (Shortage("B", 2, 1),))


FREE = st.dictionaries(st.sampled_from(LOCATIONS), st.integers(0, 6))
STOCK = st.fixed_dictionaries(dict.fromkeys("ABC", FREE))
WISHES = st.dictionaries(st.sampled_from("ABC"), st.integers(1, 9), min_size=1)
PRIORITIES = st.permutations(LOCATIONS)


@given(STOCK, WISHES, st.integers(0, 5), PRIORITIES)
def test_every_allocation(
    free: dict[str, dict[str, int]], wishes: dict[str, int], safety_stock: int, locations: list[str]
) -> None:
    stock = levels(safety_stock, **free)
    lines = [Line(sku, quantity) for sku, quantity in wishes.items()]
    parts, short = allocate(lines, stock, locations)

    available = {sku: max(0, sum(at.values()) - safety_stock) for sku, at in free.items()}
    assert short == tuple(Shortage(s, q, available[s]) for s, q in wishes.items() if q > available[s])
    if short:
        assert parts == ()
        return
    # Each line in full, and nothing that isn't there.
    served, taken = Counter[str](), Counter[tuple[str, str]]()
    for part in parts:
        served[part.sku] += part.quantity
        taken[part.sku, part.location] += part.quantity
    assert served == wishes
    assert all(0 < units <= free[sku].get(location, 0) for (sku, location), units in taken.items())
    # What is kept back stays, over all locations.
    assert all(sum(free[sku].values()) - served[sku] >= safety_stock for sku in wishes)

    whole_order = [name for name in locations if all(free[s].get(name, 0) >= q for s, q in wishes.items())]
    if whole_order:
        assert {part.location for part in parts} == {whole_order[0]}
        return
    for sku, quantity in wishes.items():
        used = [name for name in locations if taken[sku, name]]
        if whole_line := [name for name in locations if free[sku].get(name, 0) >= quantity]:
            assert used == [whole_line[0]]
        else:
            # All of the nearer ones before any of a farther one.
            emptied = [name for name in locations[: locations.index(used[-1])] if free[sku].get(name, 0)]
            assert used[:-1] == emptied
            assert all(taken[sku, name] == free[sku][name] for name in emptied)
