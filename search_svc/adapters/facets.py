"""Filters and facets in the engine's language."""

import re
from collections.abc import Mapping
from typing import Any

from search_svc.adapters.documents import attribute_term, price_key
from search_svc.domain.query import Facet, Query

Clause = dict[str, Any]

_OPERATORS = re.compile(r"""[.?+*|{}\[\]()"\\#@&<>~^$-]""")
_FACET_VALUES = 20


def conditions(query: Query) -> list[Clause]:
    """The conditions that no facet shows."""
    conditions: list[Clause] = []
    if query.price:
        low, high = query.price.minimum, query.price.maximum
        bounds = {
            "gte": price_key(query.price.currency, 0 if low is None else low),
            "lte": price_key(query.price.currency, 10**19 - 1 if high is None else high),
        }
        conditions.append({"range": {"prices": bounds}})
    if query.in_stock:
        conditions.append({"term": {"in_stock": True}})
    return conditions


def filters_of(query: Query) -> dict[str, Clause]:
    """The conditions that a facet shows, by the facet's name."""
    filters: dict[str, Clause] = {}
    if query.brands:
        filters["brand"] = {"terms": {"brand": list(query.brands)}}
    if query.categories:
        filters["category"] = {"terms": {"categories": list(query.categories)}}
    for name, values in (query.attributes or {}).items():
        terms = [attribute_term(name, value) for value in values]
        filters[f"attributes.{name}"] = {"terms": {"attributes": terms}}
    return filters


def aggregations_of(query: Query, filters: Mapping[str, Clause]) -> dict[str, Clause]:
    """A facet counts what passes the other facets' conditions: so its values stay on offer beside the one chosen."""

    def counted(facet: str, aggregations: dict[str, Clause]) -> Clause:
        others = [clause for name, clause in filters.items() if name != facet]
        return {"filter": all_of(others), "aggregations": aggregations}

    aggregations = {
        "brand": counted("brand", {"values": _terms("brand")}),
        "category": counted("category", {"values": _terms("categories")}),
    }
    # By number: engines refuse some characters in the name of an aggregation.
    for number, name in enumerate(query.attribute_facets):
        values = _terms("attributes")
        values["terms"]["include"] = f"{_literally(attribute_term(name))}(.|\n)*"
        aggregations[f"attribute {number}"] = counted(f"attributes.{name}", {"values": values})
    return aggregations


def _terms(field: str) -> Clause:
    return {"terms": {"field": field, "size": _FACET_VALUES, "order": [{"_count": "desc"}, {"_key": "asc"}]}}


def facets_of(query: Query, answer: Mapping[str, Any]) -> list[Facet]:
    facets = [Facet(name, _values(answer[name]["values"])) for name in ("brand", "category")]
    for number, name in enumerate(query.attribute_facets):
        values = _values(answer[f"attribute {number}"]["values"], attribute_term(name))
        facets.append(Facet(f"attributes.{name}", values))
    return facets


def _values(aggregation: Mapping[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    buckets = ((bucket["key"].removeprefix(prefix), bucket["doc_count"]) for bucket in aggregation["buckets"])
    return [(value, count) for value, count in buckets if value]


def _literally(text: str) -> str:
    """`text` as a regular expression of Lucene's."""
    return _OPERATORS.sub(r"\\\g<0>", text)


def all_of(clauses: Any) -> Clause:
    return {"bool": {"filter": list(clauses)}}
