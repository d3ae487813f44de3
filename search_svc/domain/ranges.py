"""Ranges that are chosen from the data: few, of about equal counts, with bounds that people like to read.

Numbers are counted by steps: each rounded down to two significant digits. Bounds have no more digits than that, so that
the counts of steps are those of the numbers themselves.
"""

from collections.abc import Iterator, Sequence
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise

_DIGITS = 2
_MOST = 5
_ENOUGH = 3
_ROUNDEST = [(0,), (1,), (5,), (2,), (1, 5), (3,), (7,)]
_ROUND = [Decimal((0, digits, 1 - len(digits))) for digits in _ROUNDEST[1:]]

Bound = Decimal | None
Range = tuple[Bound, Bound]
"""From the first, which it includes, to the second, which it doesn't; None is no bound."""


def step(value: Decimal) -> Decimal:
    """`value`, which is finite, rounded down to two significant digits."""
    if not value:
        return Decimal(0)
    return value.quantize(Decimal(1).scaleb(value.adjusted() - _DIGITS + 1), rounding=ROUND_FLOOR).normalize()


def ranges(counts: Sequence[tuple[Decimal, int]], most: int = _MOST) -> list[Range]:
    """At most `most` ranges that cover everything, none of them empty; none where all are of one step.

    `counts` are steps and how many numbers each has.
    """
    ordered = sorted(counts)
    if len(ordered) < 2:
        return []
    bounds = _bounds(ordered, list(_candidates(ordered, _ROUND)), most)
    if len(bounds) + 1 < _ENOUGH:
        bounds = _bounds(ordered, [value for value, _ in ordered[1:]], most)
    return list(pairwise([None, *bounds, None]))


def _bounds(ordered: Sequence[tuple[Decimal, int]], candidates: Sequence[Decimal], most: int) -> list[Decimal]:
    """For each share of the whole the candidate that comes nearest to it."""
    total = sum(count for _, count in ordered)
    by_count: dict[int, Decimal] = {}
    passed, place = 0, 0
    for candidate in sorted(candidates):
        while place < len(ordered) and ordered[place][0] < candidate:
            passed += ordered[place][1]
            place += 1
        known = by_count.get(passed)
        # Of several with nothing between them the roundest.
        if 0 < passed < total and (known is None or _roundness(candidate) < _roundness(known)):
            by_count[passed] = candidate
    below = {candidate: passed for passed, candidate in by_count.items()}
    chosen = {
        min(below, key=lambda candidate: (abs(below[candidate] * most - part * total), candidate))
        for part in range(1, most)
        if below
    }
    return sorted(chosen)


def _roundness(value: Decimal) -> int:
    mantissa = abs(value).normalize().as_tuple().digits
    return _ROUNDEST.index(mantissa) if mantissa in _ROUNDEST else len(_ROUNDEST)


def _candidates(ordered: Sequence[tuple[Decimal, int]], mantissas: Sequence[Decimal]) -> Iterator[Decimal]:
    low, high = ordered[0][0], ordered[-1][0]
    if low < 0 <= high:
        yield Decimal(0)
    exponents = {value.adjusted() for value, _ in ordered if value}
    for exponent in {e + more for e in exponents for more in (0, 1)}:
        for mantissa in mantissas:
            for candidate in (mantissa.scaleb(exponent), -mantissa.scaleb(exponent)):
                if low < candidate <= high:
                    yield candidate
