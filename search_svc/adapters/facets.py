"""Filters and facets in the engine's language."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from chassis.money import Money
from search_svc.adapters.terms import (
    HIGHEST_PRICE,
    SEPARATOR,
    attribute_term,
    level_term,
    number_key,
    number_of,
    price_key,
    price_of,
    shown_value,
)
from search_svc.domain.facets import Definitions, candidates, telling
from search_svc.domain.query import Facet, FacetValue, NumberRange, PriceRange, Query
from search_svc.domain.ranges import ranges

Clause = dict[str, Any]

_OPERATORS = re.compile(r"""[.?+*|{}\[\]()"\\#@&<>~^$-]""")
_FACET_VALUES = 20
# Of more numbers than these ranges are made.
_SINGLE_NUMBERS = 10
_STEPS = 1_000
_KINDS = 200
# Of so many chosen categories the tree is shown; engines take regular expressions of up to 1,000 characters.
_TREES = 5
_LONGEST_PATTERN = 900
_PRICE, _AVAILABILITY, _CATEGORY, _BRAND = "price", "availability", "category", "brand"


def conditions(query: Query) -> list[Clause]:
    """The conditions that no facet shows."""
    conditions: list[Clause] = []
    if query.price:
        conditions.append(_in_price_range(query.price))
    if query.in_stock:
        conditions.append({"term": {"in_stock": True}})
    return conditions


def filters_of(query: Query) -> dict[str, Clause]:
    """The conditions that a facet shows, by the facet's name."""
    filters: dict[str, Clause] = {}
    if query.brands:
        filters[_BRAND] = {"terms": {"brand": list(query.brands)}}
    if query.categories:
        filters[_CATEGORY] = {"terms": {"categories": list(query.categories)}}
    if query.price_ranges:
        filters[_PRICE] = _any_of(map(_in_price_range, query.price_ranges))
    if query.availabilities:
        filters[_AVAILABILITY] = {"terms": {"availability": [level.name for level in query.availabilities]}}
    for name, wanted in (query.attributes or {}).items():
        terms = [attribute_term(name, value) for value in wanted if isinstance(value, str)]
        clauses: list[Clause] = [{"terms": {"attributes": terms}}] if terms else []
        clauses += [_in_number_range(name, value) for value in wanted if isinstance(value, NumberRange)]
        filters[_of_attribute(name)] = _any_of(clauses)
    return filters


@dataclass(frozen=True, slots=True)
class Facets:
    """The facets of one query, counted in two steps: the first along with the hits, the second where it takes the
    first to know what to count.

    A facet counts what passes the other facets' conditions: so its values stay on offer beside the one chosen.
    """

    query: Query
    definitions: Definitions
    filters: Mapping[str, Clause] = field(default_factory=dict)

    def first(self) -> dict[str, Clause]:
        """Aggregations."""
        query = self.query
        if not query.facets:
            return {}
        paths = _trees(query)
        patterns = [p for path in paths if (p := _children(path)) and len(p) < _LONGEST_PATTERN]
        levels = {
            f"children {number}": _terms("category_levels", pattern)
            for number, pattern in enumerate(patterns or [f"1{SEPARATOR}(.|\n)*"])
        }
        if above := sorted({level for path in paths for level in _levels(path)}):
            levels["above"] = {"terms": {"field": "category_levels", "size": len(above), "include": above}}
        aggregations = {
            _BRAND: self._counted(_BRAND, {"values": _terms("brand")}),
            _CATEGORY: self._counted(_CATEGORY, levels),
            _AVAILABILITY: self._counted(_AVAILABILITY, {"values": _terms("availability")}),
            _PRICE: self._counted(_PRICE, {"steps": _most(self._price_pattern(), "price_steps")}),
        }
        if query.attribute_facets:
            aggregations |= self._attributes(query.attribute_facets)
        else:
            aggregations["kinds"] = self._counted("", {"values": _most(None, "attribute_kinds", _KINDS)})
        return aggregations

    def second(self, first: Mapping[str, Any]) -> dict[str, Clause]:
        """Aggregations that the answer to the first asks for; often none."""
        if not self.query.facets:
            return {}
        aggregations: dict[str, Clause] = {}
        if found := self._price_ranges(first):
            clauses = {str(number): _in_price_range(each) for number, each in enumerate(found)}
            aggregations[_PRICE] = self._counted(_PRICE, {"ranges": {"filters": {"filters": clauses}}})
        if not self.query.attribute_facets:
            aggregations |= self._attributes(self._chosen(first))
        return aggregations

    def answer(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Facet]:
        """In their order: brand, category, price, availability, attributes."""
        if not self.query.facets:
            return []
        buckets = second[_PRICE]["ranges"]["buckets"] if _PRICE in second else {}
        prices = [
            FacetValue(_shown_prices(each), buckets[str(number)]["doc_count"], each)
            for number, each in enumerate(self._price_ranges(first))
        ]
        facets = [
            Facet(_BRAND, _values(first[_BRAND]["values"])),
            Facet(_CATEGORY, _tree(first[_CATEGORY])),
            Facet(_PRICE, prices),
            Facet(_AVAILABILITY, _values(first[_AVAILABILITY]["values"])),
        ]
        if named := self.query.attribute_facets:
            return facets + [self._attribute(name, first, number) for number, name in enumerate(named)]
        names = self._chosen(first)
        asked = [name for name in self._asked if name in names]
        found = [(name, self._attribute(name, second, number)) for number, name in enumerate(names)]
        others = [(name, facet) for name, facet in found if name not in asked]
        chosen = telling(others, first["kinds"]["doc_count"], self.definitions)
        return facets + [facet for name, facet in found if name in asked] + chosen

    def _counted(self, facet: str, aggregations: dict[str, Clause]) -> Clause:
        others = [clause for name, clause in self.filters.items() if name != facet]
        return {"filter": all_of(others), "aggregations": aggregations}

    @property
    def _asked(self) -> list[str]:
        """The attributes that are filtered by, whose facets are shown in any case."""
        return list(self.query.attributes or {})[:_FACET_VALUES]

    def _chosen(self, first: Mapping[str, Any]) -> list[str]:
        coverage: Counter[str] = Counter()
        for bucket in first["kinds"]["values"]["buckets"]:
            coverage[bucket["key"].partition(SEPARATOR)[2]] += bucket["doc_count"]
        asked = self._asked
        more = candidates(coverage, first["kinds"]["doc_count"], self.definitions)
        return asked + [name for name in more if name not in asked]

    def _attributes(self, names: Sequence[str]) -> dict[str, Clause]:
        """By number: engines refuse some characters in the name of an aggregation."""
        aggregations = {}
        for number, name in enumerate(names):
            pattern = f"{_literally(attribute_term(name))}(.|\n)*"
            both = {"values": _terms("attributes", pattern), "steps": _most(pattern, "number_steps")}
            aggregations[f"attribute {number}"] = self._counted(_of_attribute(name), both)
        return aggregations

    def _attribute(self, name: str, answer: Mapping[str, Any], number: int) -> Facet:
        prefix = attribute_term(name)
        counted = answer[f"attribute {number}"]
        steps = [(b["key"].removeprefix(prefix), b["doc_count"]) for b in counted["steps"]["buckets"]]
        values = _values(counted["values"], prefix)
        unit = self.definitions[name].unit if name in self.definitions else ""
        if steps and len(counted["values"]["buckets"]) > _SINGLE_NUMBERS:
            counts = [(Decimal(repr(number_of(key))), count) for key, count in steps]
            if found := ranges(counts):
                values = [_number_range(low, high, counts) for low, high in found]
        return Facet(_of_attribute(name), values, unit if steps else "")

    def _price_pattern(self) -> str | None:
        return f"{self._currency}.*" if self._currency else None

    @property
    def _currency(self) -> str:
        query = self.query
        if query.currency or query.price is None:
            return query.currency or next((each.currency for each in query.price_ranges), "")
        return query.price.currency

    def _price_ranges(self, first: Mapping[str, Any]) -> list[PriceRange]:
        counts: dict[str, list[tuple[Decimal, int]]] = {}
        for bucket in first[_PRICE]["steps"]["buckets"]:
            currency, nanos = price_of(bucket["key"])
            counts.setdefault(currency, []).append((Decimal(nanos).scaleb(-9), bucket["doc_count"]))
        if not counts:
            return []
        currency = self._currency or min(counts, key=lambda code: (-sum(n for _, n in counts[code]), code))
        return [
            PriceRange(currency, minimum=_nanos(low), below=_nanos(high))
            for low, high in ranges(counts.get(currency, []))
        ]


def _nanos(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(9))


def _number_range(low: Decimal | None, high: Decimal | None, counts: Sequence[tuple[Decimal, int]]) -> FacetValue:
    count = sum(n for step, n in counts if (low is None or step >= low) and (high is None or step < high))
    found = NumberRange(
        minimum=None if low is None else float(low),
        below=None if high is None else float(high),
    )
    shown = (None if bound is None else shown_value(bound) for bound in (found.minimum, found.below))
    return FacetValue(_shown_range(*shown), count, found)


def _shown_prices(found: PriceRange) -> str:
    shown = (None if n is None else str(Money(found.currency, n)) for n in (found.minimum, found.below))
    return _shown_range(*shown)


def _shown_range(low: str | None, high: str | None) -> str:
    if low is None:
        return f"under {high}"
    return f"{low} and more" if high is None else f"{low} to {high}"


def _in_price_range(wanted: PriceRange) -> Clause:
    bounds = {"gte": price_key(wanted.currency, wanted.minimum or 0)}
    highest = HIGHEST_PRICE if wanted.maximum is None else wanted.maximum
    if wanted.below is not None:
        highest = min(highest, wanted.below - 1)
    # None is lower than nothing.
    if highest < 0:
        return {"bool": {"must_not": {"match_all": {}}}}
    return {"range": {"prices": {**bounds, "lte": price_key(wanted.currency, highest)}}}


def _in_number_range(name: str, wanted: NumberRange) -> Clause:
    """Finite numbers have keys from all zeros to all ones."""
    bounds = {
        "gte": attribute_term(name, "0" if wanted.minimum is None else number_key(wanted.minimum)),
        "lte": attribute_term(name, "g" if wanted.maximum is None else number_key(wanted.maximum)),
    }
    clauses: list[Clause] = [{"range": {"numbers": bounds}}]
    if wanted.below is not None:
        below = {"gte": attribute_term(name, "0"), "lt": attribute_term(name, number_key(wanted.below))}
        clauses.append({"range": {"numbers": below}})
    return all_of(clauses)


def _of_attribute(name: str) -> str:
    return f"attributes.{name}"


def _terms(field: str, pattern: str | None = None) -> Clause:
    return {"terms": _most(pattern, field, _FACET_VALUES)["terms"]}


def _most(pattern: str | None, field: str, size: int = _STEPS) -> Clause:
    terms: Clause = {"field": field, "size": size, "order": [{"_count": "desc"}, {"_key": "asc"}]}
    return {"terms": {**terms, "include": pattern} if pattern else terms}


def _trees(query: Query) -> list[tuple[str, ...]]:
    return [tuple(category.split(" > ")) for category in query.categories[:_TREES]]


def _levels(path: Sequence[str]) -> list[str]:
    return [level_term(depth, " > ".join(path[:depth])) for depth in range(1, len(path) + 1)]


def _children(path: Sequence[str]) -> str:
    return f"{len(path) + 1}{SEPARATOR}{_literally(' > '.join(path))} > (.|\n)*"


def _tree(answer: Mapping[str, Any]) -> list[FacetValue]:
    """A parent before its children, which go by how many products they have."""
    counts: dict[tuple[str, ...], FacetValue] = {}
    for name, aggregation in answer.items():
        if not isinstance(aggregation, Mapping) or not (name == "above" or name.startswith("children")):
            continue
        for bucket in aggregation["buckets"]:
            depth, _, category = bucket["key"].partition(SEPARATOR)
            value = FacetValue(category, bucket["doc_count"], depth=int(depth))
            counts[tuple(category.split(" > "))] = value

    def place(path: tuple[str, ...]) -> list[tuple[int, str]]:
        known = (counts.get(path[:depth]) for depth in range(1, len(path) + 1))
        return [(-each.count, each.value) if each else (0, "") for each in known]

    return [counts[path] for path in sorted(counts, key=place)]


def _values(aggregation: Mapping[str, Any], prefix: str = "") -> list[FacetValue]:
    buckets = ((bucket["key"].removeprefix(prefix), bucket["doc_count"]) for bucket in aggregation["buckets"])
    return [FacetValue(value, count) for value, count in buckets if value]


def _literally(text: str) -> str:
    """`text` as a regular expression of Lucene's. An escaped backslash osmem understands in brackets alone."""
    return _OPERATORS.sub(lambda found: r"[\\]" if found[0] == "\\" else f"\\{found[0]}", text)


def all_of(clauses: Iterable[Clause]) -> Clause:
    return {"bool": {"filter": list(clauses)}}


def _any_of(clauses: Iterable[Clause]) -> Clause:
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}
