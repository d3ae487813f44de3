"""Filters and facets in the engine's language."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_SAMPLE = 200
_MOST_NAMED = 10
# Of so many chosen categories the tree is shown; engines take regular expressions of up to 1,000 characters.
_TREES = 5
_LONGEST_PATTERN = 900
_PRICE, _AVAILABILITY, _CATEGORY, _BRAND = "price", "availability", "category", "brand"
_FOUND = "found"


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
    """The facets of one query, counted along with the hits, and in a second step where it takes the first to know what
    to count.

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
            f"children {number}": _terms("category_levels", pattern, _FACET_VALUES)
            for number, pattern in enumerate(patterns or [f"1{SEPARATOR}(.|\n)*"])
        }
        if above := sorted({level for path in paths for level in _levels(path)}):
            levels["above"] = {"terms": {"field": "category_levels", "size": len(above), "include": above}}
        steps = _terms("price_steps", f"{self.currency}.*" if self.currency else None)
        aggregations = {
            _BRAND: self.counted(_BRAND, {"values": _terms("brand", size=_FACET_VALUES)}),
            _CATEGORY: self.counted(_CATEGORY, levels),
            _PRICE: self.counted(_PRICE, {"steps": steps}),
            _AVAILABILITY: self.counted(_AVAILABILITY, {"values": _terms("availability")}),
        }
        # By number: engines refuse some characters in the name of an aggregation.
        for number, name in enumerate(self.named):
            pattern = f"{_literally(attribute_term(name))}(.|\n)*"
            both = {"values": _terms("attributes", pattern, _FACET_VALUES), "steps": _terms("number_steps", pattern)}
            aggregations[f"attribute {number}"] = self.counted(_of_attribute(name), both)
        if not query.attribute_facets:
            # Chosen from a sample: to count all attributes of all hits takes engines long.
            terms = {"values": _terms("attributes"), "steps": _terms("number_steps")}
            sample = {"sampler": {"shard_size": _SAMPLE}, "aggregations": terms}
            aggregations[_FOUND] = self.counted("", {"sample": sample})
        return aggregations

    def counted(self, facet: str, aggregations: dict[str, Clause]) -> Clause:
        others = [clause for name, clause in self.filters.items() if name != facet]
        return {"filter": all_of(others), "aggregations": aggregations}

    @property
    def named(self) -> Sequence[str]:
        """The attributes whose facets are shown in any case: those asked for or, with none, those filtered by."""
        return self.query.attribute_facets or list(self.query.attributes or {})[:_MOST_NAMED]

    @property
    def currency(self) -> str:
        """That of price ranges, where the query says it."""
        query = self.query
        if query.currency or query.price is None:
            return query.currency or next((each.currency for each in query.price_ranges), "")
        return query.price.currency


class FoundFacets:
    """What the first step found."""

    def __init__(self, facets: Facets, answer: Mapping[str, Any]):
        self._facets = facets
        self._answer = answer
        self._prices: list[FacetValue] = []
        self._prices_exact = True
        self._attributes: list[Facet] = []
        self._attributes_exact = True
        if facets.query.facets:
            self._read_prices()
            self._read_attributes()

    def second(self) -> dict[str, Clause]:
        """Aggregations that count anew what the first step couldn't count exactly; often none."""
        aggregations: dict[str, Clause] = {}
        if not self._prices_exact:
            clauses = [_in_price_range(each.range) for each in self._prices if isinstance(each.range, PriceRange)]
            aggregations[_PRICE] = self._facets.counted(_PRICE, _each(clauses))
        if not self._attributes_exact:
            anew = _each([_in_number_range(name, range_) for name, range_ in self._inexact_ranges()])
            if terms := self._inexact_terms():
                anew["values"] = {"terms": {"field": "attributes", "size": len(terms), "include": terms}}
            aggregations[_FOUND] = self._facets.counted("", anew)
        return aggregations

    def read(self, second: Mapping[str, Any]) -> list[Facet]:
        """In their order: brand, category, price, availability, attributes."""
        if not self._facets.query.facets:
            return []
        prices, attributes = self._prices, self._attributes
        if _PRICE in second:
            counts = _counts(second[_PRICE])
            prices = [replace(value, count=count) for value, count in zip(prices, counts, strict=True)]
        if _FOUND in second:
            attributes = self._anew(second[_FOUND])
        return [
            Facet(_BRAND, _values(self._answer[_BRAND]["values"])),
            Facet(_CATEGORY, _tree(self._answer[_CATEGORY])),
            Facet(_PRICE, prices),
            Facet(_AVAILABILITY, _values(self._answer[_AVAILABILITY]["values"])),
            *attributes,
        ]

    def _read_prices(self) -> None:
        """A product counts once for each step of its variants' prices: the sums are exact only where each product has
        one step, and none has a price in a currency that wasn't looked at."""
        answer = self._answer[_PRICE]
        counts: dict[str, list[tuple[Decimal, int]]] = {}
        for bucket in answer["steps"]["buckets"]:
            currency, nanos = price_of(bucket["key"])
            counts.setdefault(currency, []).append((Decimal(nanos).scaleb(-9), bucket["doc_count"]))
        if not counts:
            return
        by_default = min(counts, key=lambda code: (-sum(count for _, count in counts[code]), code))
        currency = self._facets.currency or by_default
        steps = counts.get(currency, [])
        self._prices = [_price_range(currency, low, high, steps) for low, high in ranges(steps)]
        alone = len(counts) == 1 and not self._facets.currency
        one_each = alone and sum(count for _, count in steps) == answer["doc_count"]
        self._prices_exact = not self._prices or (one_each and not answer["steps"]["sum_other_doc_count"])

    def _read_attributes(self) -> None:
        facets = self._facets
        named = []
        for number, name in enumerate(facets.named):
            counted = self._answer[f"attribute {number}"]
            values = _by_name(counted["values"]).get(_plain(name), [])
            named.append(self._facet(name, values, _by_name(counted["steps"]).get(_plain(name), [])))
        self._attributes = named
        if facets.query.attribute_facets:
            return
        found = self._answer[_FOUND]
        sample = found["sample"]
        total = sample["doc_count"]
        whole = total == found["doc_count"] and not sample["steps"]["sum_other_doc_count"]
        values_of, steps_of = _by_name(sample["values"]), _by_name(sample["steps"])
        coverage = {name: sum(count for _, count in values) for name, values in values_of.items()}
        worthy = candidates(coverage, total, facets.definitions)
        others = [
            self._facet(name, values_of.get(_plain(name), []), steps_of.get(_plain(name), []), whole=whole)
            for name in worthy
            if name not in facets.named
        ]
        most = _MOST_NAMED - len(named)
        pairs = [(_name(facet), facet) for facet in others]
        self._attributes = named + telling(pairs, coverage, total, facets.definitions)[:most]
        self._attributes_exact = whole or len(self._attributes) == len(named)

    def _facet(
        self,
        name: str,
        values: Sequence[tuple[str, int]],
        steps: Sequence[tuple[str, int]],
        *,
        whole: bool = True,
    ) -> Facet:
        """Not the `whole` is known of a sample, in which a few numbers stand for more."""
        definition = self._facets.definitions.get(name)
        unit = definition.unit if definition and steps else ""
        shown = [FacetValue(value, count) for value, count in values[:_FACET_VALUES] if value]
        if len(values) > (_SINGLE_NUMBERS if whole else _SINGLE_NUMBERS // 2) or (steps and not values):
            counts = [(Decimal(repr(number_of(key))), count) for key, count in steps]
            shown = [_number_range(low, high, counts) for low, high in ranges(counts)] or shown
        return Facet(_of_attribute(name), shown, unit)

    @property
    def _chosen(self) -> list[Facet]:
        return self._attributes[len(self._facets.named) :]

    def _inexact_ranges(self) -> list[tuple[str, NumberRange]]:
        return [(_name(f), v.range) for f in self._chosen for v in f.values if isinstance(v.range, NumberRange)]

    def _inexact_terms(self) -> list[str]:
        return [attribute_term(_name(f), v.value) for f in self._chosen for v in f.values if v.range is None]

    def _anew(self, answer: Mapping[str, Any]) -> list[Facet]:
        """The attributes' facets with the counts of the second step."""
        counts: dict[tuple[str, object], int] = {}
        counts.update(zip(self._inexact_ranges(), _counts(answer), strict=True))
        for name, found in _by_name(answer.get("values", {"buckets": []})).items():
            counts.update(((name, value), count) for value, count in found)
        facets = []
        for facet in self._chosen:
            name = _name(facet)
            values = [
                replace(each, count=counts.get((name, each.range) if each.range else (_plain(name), each.value), 0))
                for each in facet.values
            ]
            if not any(value.range for value in values):
                values.sort(key=lambda each: (-each.count, each.value))
            facets.append(replace(facet, values=[value for value in values if value.count]))
        return [*self._attributes[: len(self._facets.named)], *facets]


def _each(clauses: Sequence[Clause]) -> dict[str, Clause]:
    if not clauses:
        return {}
    return {"ranges": {"filters": {"filters": {str(number): clause for number, clause in enumerate(clauses)}}}}


def _counts(answer: Mapping[str, Any]) -> list[int]:
    buckets = answer.get("ranges", {"buckets": {}})["buckets"]
    return [buckets[str(number)]["doc_count"] for number in range(len(buckets))]


def _by_name(aggregation: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """What terms say of each attribute: values or keys with their counts."""
    found: dict[str, list[tuple[str, int]]] = {}
    for bucket in aggregation["buckets"]:
        name, _, value = bucket["key"].partition(SEPARATOR)
        found.setdefault(name, []).append((value, bucket["doc_count"]))
    return found


def _price_range(
    currency: str, low: Decimal | None, high: Decimal | None, steps: Sequence[tuple[Decimal, int]]
) -> FacetValue:
    found = PriceRange(currency, minimum=_nanos(low), below=_nanos(high))
    return FacetValue(_shown_prices(found), _sum(low, high, steps), found)


def _sum(low: Decimal | None, high: Decimal | None, steps: Sequence[tuple[Decimal, int]]) -> int:
    return sum(n for step, n in steps if (low is None or step >= low) and (high is None or step < high))


def _nanos(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(9))


def _number_range(low: Decimal | None, high: Decimal | None, counts: Sequence[tuple[Decimal, int]]) -> FacetValue:
    found = NumberRange(
        minimum=None if low is None else float(low),
        below=None if high is None else float(high),
    )
    shown = (None if bound is None else shown_value(bound) for bound in (found.minimum, found.below))
    return FacetValue(_shown_range(*shown), _sum(low, high, counts), found)


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


def _name(facet: Facet) -> str:
    return facet.name.removeprefix(_of_attribute(""))


def _plain(name: str) -> str:
    """An attribute's name as its terms have it."""
    return attribute_term(name).removesuffix(SEPARATOR)


def _terms(field: str, pattern: str | None = None, size: int = _STEPS) -> Clause:
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


def _values(aggregation: Mapping[str, Any]) -> list[FacetValue]:
    return [FacetValue(bucket["key"], bucket["doc_count"]) for bucket in aggregation["buckets"] if bucket["key"]]


def _literally(text: str) -> str:
    """`text` as a regular expression of Lucene's. An escaped backslash osmem understands in brackets alone."""
    return _OPERATORS.sub(lambda found: r"[\\]" if found[0] == "\\" else f"\\{found[0]}", text)


def all_of(clauses: Iterable[Clause]) -> Clause:
    return {"bool": {"filter": list(clauses)}}


def _any_of(clauses: Iterable[Clause]) -> Clause:
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}
