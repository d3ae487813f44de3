"""Ranges chosen from numbers: they cover all, none is empty, and the counts of steps are those of the numbers."""

from collections import Counter
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from search_svc.domain.ranges import ranges, step

amounts = st.decimals(-10_000, 10_000, places=2)


def within(low: Decimal | None, high: Decimal | None, value: Decimal) -> bool:
    return (low is None or low <= value) and (high is None or value < high)


@given(st.lists(amounts, max_size=60))
def test_ranges_cover_everything_and_none_is_empty(numbers: list[Decimal]) -> None:
    counts = Counter(map(step, numbers))
    found = ranges(list(counts.items()))
    assert len(found) <= 5
    assert bool(found) == (len(counts) > 1)
    for number in numbers:
        assert sum(within(*each, number) for each in found) == bool(found)
    for low, high in found:
        exact = sum(within(low, high, number) for number in numbers)
        assert exact == sum(count for value, count in counts.items() if within(low, high, value)) > 0


def test_bounds_are_what_people_like_to_read() -> None:
    def bounds(*numbers: str) -> list[str]:
        counts = Counter(step(Decimal(n)) for n in numbers)
        return [f"{high:f}" for _, high in ranges(list(counts.items())) if high is not None]

    assert bounds(*(f"{n}.99" for n in range(100))) == ["20", "30", "50", "70"]
    assert bounds("13.3", "14", "15.6", "17.3") == ["14", "15", "17"]
    assert bounds("0.5", "8", "80", "900") == ["1", "10", "100"]
    assert bounds("5") == bounds() == []
