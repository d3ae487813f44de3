"""Queries in the engine's language."""

import html
import math
import re
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from search_svc.adapters.documents import attribute_term, price_key, product_from_document
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.schema import PRODUCTS, Indices
from search_svc.application.ports import IndexMissing
from search_svc.domain.query import Facet, Hit, IndexStatus, Position, Query, Results, Sort

Clause = dict[str, Any]

_OPERATORS = re.compile(r"""[.?+*|{}\[\]()"\\#@&<>~^$-]""")

_LIVE: Clause = {"term": {"shown": True}}
_FACET_VALUES = 20
# One or two words must all be there; of more, three quarters.
_MOST_TERMS = "2<75%"
_WINDOW = 10_000  # hits of one answer, at most: the engines' default

_NOT_SHOWN = ["text", "rest.description"]
_BY_ID = [{"product_id": "asc"}]
_BY_PRICE = {
    Sort.PRICE_ASC: [{"price_from": "asc"}, {"product_id": "asc"}],
    Sort.PRICE_DESC: [{"price_from": "desc"}, {"product_id": "asc"}],
}


class ElasticProductSearch:
    def __init__(self, engine: Engine, indices: Indices):
        self._engine = engine
        self._indices = indices

    async def search(self, query: Query, *, size: int, after: Position | None, fuzzy: bool) -> Results:
        by_relevance = query.sort is Sort.RELEVANCE and bool(query.text)
        filters = _filters(query)
        counted: Position | None = None
        body: dict[str, Any] = {
            "query": _matching(query.text, fuzzy, _conditions(query)),
            "post_filter": _all(filters.values()),
            "aggregations": _aggregations(query, filters),
            "size": size + 1,
            "track_total_hits": True,
            "source_excludes": _NOT_SHOWN,
        }
        if query.text:
            body["highlight"] = _highlight(query.text, fuzzy)
        if by_relevance:
            body["sort"] = [{"_score": "desc"}, *_BY_ID]
            if after and size + 1 + int(after[2]) > _WINDOW:
                # Right where scores are compared as they are shown; osmem doesn't.
                counted = after
                body["search_after"] = list(after[:2])
            elif after:
                body["search_after"] = [_just_above(float(after[0])), ""]
                body["size"] += int(after[2])
        else:
            body["sort"] = _BY_PRICE.get(query.sort, _BY_ID)
            body["track_scores"] = bool(query.text)
            if after:
                body["search_after"] = list(after)
        with translated():
            # The same query goes to the same copy of the index: scores differ between copies.
            answer = await self._engine.client.search(
                index=PRODUCTS, preference=sha256(repr(query).encode()).hexdigest()[:16], **body
            )
        found = answer["hits"]["hits"]
        if by_relevance:
            found = _behind(_with_ties(found, counted), after)
        return Results(
            hits=[_hit(hit) for hit in found[:size]],
            total=answer["hits"]["total"]["value"],
            facets=_facets(query, answer["aggregations"]),
            more=len(found) > size,
            fuzzy=fuzzy,
        )

    async def matches(self, text: str) -> bool:
        with translated():
            answer = await self._engine.client.count(index=PRODUCTS, query=_matching(text, False, []))
        return bool(answer["count"])

    async def status(self) -> IndexStatus:
        client = self._engine.client
        try:
            built = await self._indices.built()
            with translated():
                products = await client.count(index=PRODUCTS, query=_LIVE)
                in_stock = await client.count(index=PRODUCTS, query=_all([_LIVE, {"term": {"in_stock": True}}]))
            name = await self._indices.name()
        except IndexMissing:
            return IndexStatus("", 0, 0, rebuilding=True)
        return IndexStatus(name, products["count"], in_stock["count"], rebuilding=not built)


def _matching(text: str, fuzzy: bool, conditions: Sequence[Clause]) -> Clause:
    """A sum of several views of the same text, none of which is good alone: all that is known of the product, its name,
    all terms in one field, all terms over all fields."""
    required: list[Clause] = []
    preferred: list[Clause] = []
    if text and fuzzy:
        tolerant = {"query": text, "fuzziness": "AUTO", "prefix_length": 0, "max_expansions": 50}
        required = [{"match": {"text": {**tolerant, "minimum_should_match": _MOST_TERMS}}}]
        preferred = [{"match": {"name": tolerant}}]
    elif text:
        words = {"match": {"text": {"query": text, "minimum_should_match": _MOST_TERMS}}}
        code = {"term": {"codes": {"value": text, "boost": 20}}}
        required = [{"bool": {"should": [words, code], "minimum_should_match": 1}}]
        preferred = [
            {"match": {"name": {"query": text, "boost": 2}}},
            {"match": {"text": {"query": text, "operator": "and"}}},
            {
                "multi_match": {
                    "query": text,
                    "type": "cross_fields",
                    "operator": "and",
                    "tie_breaker": 0.3,
                    "fields": ["name^2", "brand.words", "text"],
                }
            },
        ]
    return {"bool": {"must": required, "should": preferred, "filter": [_LIVE, *conditions]}}


def _highlight(text: str, fuzzy: bool) -> Clause:
    match: Clause = {"query": text, "fuzziness": "AUTO"} if fuzzy else {"query": text}
    return {
        "encoder": "html",
        "pre_tags": ["<em>"],
        "post_tags": ["</em>"],
        "fields": {"name.shown": {"number_of_fragments": 0, "highlight_query": {"match": {"name.shown": match}}}},
    }


def _conditions(query: Query) -> list[Clause]:
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


def _filters(query: Query) -> dict[str, Clause]:
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


def _aggregations(query: Query, filters: Mapping[str, Clause]) -> dict[str, Clause]:
    """A facet counts what passes the other facets' conditions: so its values stay on offer beside the one chosen."""

    def counted(facet: str, aggregations: dict[str, Clause]) -> Clause:
        others = [clause for name, clause in filters.items() if name != facet]
        return {"filter": _all(others), "aggregations": aggregations}

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


def _facets(query: Query, answer: Mapping[str, Any]) -> list[Facet]:
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


def _all(clauses: Any) -> Clause:
    return {"bool": {"filter": list(clauses)}}


def _hit(hit: Mapping[str, Any]) -> Hit:
    product = product_from_document(hit["_source"])
    fragments = hit.get("highlight", {}).get("name.shown")
    return Hit(
        product=product,
        score=hit["_score"] or 0.0,
        highlight=fragments[0] if fragments else html.escape(product.name),
        position=tuple(hit["sort"]),
    )


def _with_ties(hits: Sequence[Mapping[str, Any]], counted: Position | None) -> list[dict[str, Any]]:
    """Each hit's sort values with how many hits of its score there are up to it; those up to `counted` aren't among
    the hits."""
    result: list[dict[str, Any]] = []
    last, _, ties = counted or (None, "", 0)
    for hit in hits:
        score, key = hit["sort"]
        ties = int(ties) + 1 if score == last else 1
        last = score
        result.append({**hit, "sort": [float(score), key, ties]})
    return result


def _behind(hits: list[dict[str, Any]], after: Position | None) -> list[dict[str, Any]]:
    """The hits behind the one at `after`, out of all from its score downwards."""
    if after is None:
        return hits
    score, key, _ = after
    for place, hit in enumerate(hits):
        if hit["sort"][:2] == [score, key]:
            return hits[place + 1 :]
    return [hit for hit in hits if (-hit["sort"][0], hit["sort"][1]) > (-float(score), str(key))]


def _just_above(score: float) -> float:
    """The largest number that is `score` when rounded to 32 bits.

    Engines show scores as 32-bit floats. OpenSearch compares them so as well, osmem compares with more bits than it
    shows: searching on from this number gives every hit that shows `score` on both.
    """
    (bits,) = struct.unpack("<i", struct.pack("<f", score))
    (shown,) = struct.unpack("<f", struct.pack("<i", bits))
    (above,) = struct.unpack("<f", struct.pack("<i", bits + 1))
    return math.nextafter((shown + above) / 2, 0)
