"""Which attributes are worth counting."""

from search_svc.domain.facets import CANDIDATES, Definition, candidates, telling
from search_svc.domain.query import Facet, FacetValue, NumberRange

TOTAL = 100


def facet(name: str, *counts: int) -> tuple[str, Facet]:
    return name, Facet(f"attributes.{name}", [FacetValue(f"v{n}", count) for n, count in enumerate(counts)])


def ranged(name: str) -> tuple[str, Facet]:
    values = [FacetValue(f"r{n}", 20, NumberRange(float(n), below=n + 1.0)) for n in range(5)]
    return name, Facet(f"attributes.{name}", values)


def chosen(*facets: tuple[str, Facet], having: int = TOTAL, **definitions: Definition) -> list[str]:
    coverage = {name: having for name, _ in facets}
    return [each.name.removeprefix("attributes.") for each in telling(facets, coverage, TOTAL, definitions)]


def test_candidates_are_what_enough_products_have_and_what_types_flag() -> None:
    coverage = {"common": 90, "rare": 10, "flagged": 10, "plain": 90, "very rare": 1}
    flags = {"flagged": Definition(True), "plain": Definition(False), "very rare": Definition(True)}
    assert candidates(coverage, TOTAL, flags) == ["flagged", "common"]
    assert len(candidates({f"{n}": 90 for n in range(99)}, TOTAL, {})) == CANDIDATES


def test_what_tells_products_apart_comes_first() -> None:
    even, uneven, one = facet("even", 50, 50), facet("uneven", 90, 10), facet("one", 100)
    assert chosen(uneven, one, even) == ["even", "uneven"]
    assert chosen(uneven, even, uneven=Definition(True)) == ["uneven", "even"]
    # Most products have a value of their own that isn't among those shown.
    assert chosen(facet("words", 2, 2, 2)) == []


def test_of_measures_there_are_few_unless_types_flag_them() -> None:
    measures = [ranged(f"m{n}") for n in range(6)]
    assert chosen(*measures, facet("colour", 50, 50)) == ["colour", "m0", "m1", "m2"]
    assert len(chosen(*measures, **{name: Definition(True) for name, _ in measures})) == 6
