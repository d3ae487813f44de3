"""Queries in the engine's language."""

import html
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from search_svc.adapters.documents import product_from_document
from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.facets import Clause, Facets, FoundFacets, all_of, conditions, filters_of
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.matching import highlighted, matching
from search_svc.application.ports import IndexMissing
from search_svc.domain.facets import Definitions
from search_svc.domain.query import Hit, IndexStatus, Position, Query, Results, Sort

_LIVE: Clause = {"term": {"shown": True}}
_WINDOW = 10_000  # hits of one answer, at most: the engines' default

_COUNTED = 10_000  # hits; of more the number isn't told
_NOT_SHOWN = [
    "text", "spelling", "numbers", "number_steps", "price_steps", "category_levels",
    "rest.description",
]  # fmt: skip
_BY_ID = [{"product_id": "asc"}]
_BY_PRICE = {
    Sort.PRICE_ASC: [{"price_from": "asc"}, {"product_id": "asc"}],
    Sort.PRICE_DESC: [{"price_from": "desc"}, {"product_id": "asc"}],
    Sort.NEWEST: [{"created": "desc"}, {"product_id": "asc"}],
}


class ElasticProductSearch:
    """`definitions` gives what product types say of attributes."""

    def __init__(self, engine: Engine, indices: Indices, definitions: Callable[[], Definitions] = dict):
        self._engine = engine
        self._indices = indices
        self._definitions: Callable[[], Definitions] = definitions

    async def search(self, query: Query, *, size: int, after: Position | None, fuzzy: bool) -> Results:
        by_relevance = query.sort is Sort.RELEVANCE and bool(query.text)
        filters = filters_of(query)
        facets = Facets(query, self._definitions(), filters)
        tied: Position | None = None
        body: dict[str, Any] = {
            "query": matching(query.text, fuzzy, [_LIVE, *conditions(query)]),
            "post_filter": all_of(filters.values()),
            "aggregations": facets.first(),
            "size": size + 1,
            "track_total_hits": _COUNTED,
            "source_excludes": _NOT_SHOWN,
        }
        if query.text:
            body["highlight"] = highlighted(query.text, fuzzy)
        if by_relevance:
            body["sort"] = [{"_score": "desc"}, *_BY_ID]
            if after and size + 1 + int(after[2]) > _WINDOW:
                # Right where scores are compared as they are shown; osmem doesn't.
                tied = after
                body["search_after"] = list(after[:2])
            elif after:
                body["search_after"] = [_just_above(float(after[0])), ""]
                body["size"] += int(after[2])
        else:
            body["sort"] = _BY_PRICE.get(query.sort, _BY_ID)
            body["track_scores"] = bool(query.text)
            if after:
                body["search_after"] = list(after)
        # The same query goes to the same copy of the index: scores differ between copies.
        preference = sha256(repr(query).encode()).hexdigest()[:16]
        with translated():
            answer = await self._engine.client.search(index=PRODUCTS, preference=preference, **body)
        counted, second = FoundFacets(facets, answer.get("aggregations", {})), {}
        if more := counted.second():
            with translated():
                counts = await self._engine.client.search(
                    index=PRODUCTS,
                    preference=preference,
                    query=body["query"],
                    aggregations=more,
                    size=0,
                    track_total_hits=False,
                )
            second = counts["aggregations"]
        total = answer["hits"]["total"]
        found = answer["hits"]["hits"]
        if by_relevance:
            found = _behind(_with_ties(found, tied), after)
        return Results(
            hits=[_hit(hit) for hit in found[:size]],
            total=min(total["value"], _COUNTED),
            facets=counted.read(second),
            more=len(found) > size,
            fuzzy=fuzzy,
            at_least=total["relation"] == "gte" or total["value"] > _COUNTED,
        )

    async def matches(self, text: str) -> bool:
        with translated():
            answer = await self._engine.client.count(index=PRODUCTS, query=matching(text, False, [_LIVE]))
        return bool(answer["count"])

    async def status(self) -> IndexStatus:
        client = self._engine.client
        try:
            built = await self._indices.built()
            with translated():
                products = await client.count(index=PRODUCTS, query=_LIVE)
                in_stock = await client.count(index=PRODUCTS, query=all_of([_LIVE, {"term": {"in_stock": True}}]))
            name = await self._indices.name()
        except IndexMissing:
            return IndexStatus("", 0, 0, rebuilding=True)
        return IndexStatus(name, products["count"], in_stock["count"], rebuilding=not built)


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
