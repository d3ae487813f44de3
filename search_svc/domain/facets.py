"""Which attributes tell the products found apart, where nobody says which to count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_svc.domain.query import Facet

CANDIDATES = 16
_CHOSEN = 6
_NUMBERS = 3
_COVERED = 0.25
_COVERED_IF_FLAGGED = 0.05
_TELLING = 0.05
# The values shown, of those that have any.
_SHOWN = 0.5
# Ranges are made to be even; values that are so by themselves tell more.
_RANGED = 0.5


@dataclass(frozen=True, slots=True)
class Definition:
    """What the catalog's product types say of an attribute: whether it is meant as a facet, and its numbers' unit."""

    facet: bool
    unit: str = ""


Definitions = Mapping[str, Definition]


def candidates(coverage: Mapping[str, int], total: int, definitions: Definitions) -> list[str]:
    """The attributes worth a closer look: enough of `total` products have them, as `coverage` says by name. One that
    product types define, none of them as a facet, is none."""
    flagged = {name for name, definition in definitions.items() if definition.facet}
    worthy = [
        name
        for name, count in coverage.items()
        if (definitions[name].facet if name in definitions else True)
        and count >= total * (_COVERED_IF_FLAGGED if name in flagged else _COVERED)
    ]
    return sorted(worthy, key=lambda name: (name not in flagged, -coverage[name], name))[:CANDIDATES]


def telling(
    facets: Sequence[tuple[str, Facet]], coverage: Mapping[str, int], total: int, definitions: Definitions
) -> list[Facet]:
    """Of the candidates' facets, by attribute, those that tell most: by the chance that two of the `total` products
    have different ones of the values shown. What product types mean as facets comes first; of others a few are about
    numbers, which in large numbers are measures of the box, and none has values that mostly are each product's own."""

    def worth(item: tuple[str, Facet]) -> float:
        counts = [value.count for value in item[1].values]
        covered = sum(counts)
        if not covered or covered < coverage[item[0]] * _SHOWN:
            return 0
        evenness = 1 - sum((count / covered) ** 2 for count in counts)
        return min(covered / total, 1) * evenness * (_RANGED if _ranged(item[1]) else 1)

    def flagged(name: str) -> bool:
        return name in definitions and definitions[name].facet

    ranked = sorted(facets, key=lambda item: (not flagged(item[0]), -round(worth(item), 9), item[0]))
    chosen: list[Facet] = []
    numbers = 0
    for name, facet in ranked:
        if len(facet.values) < 2 or (not flagged(name) and worth((name, facet)) < _TELLING):
            continue
        if _ranged(facet) and not flagged(name):
            if numbers == _NUMBERS:
                continue
            numbers += 1
        chosen.append(facet)
    return chosen[:_CHOSEN]


def _ranged(facet: Facet) -> bool:
    return any(value.range for value in facet.values)
