"""Queries in the engine's language."""

import asyncio
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
from search_svc.adapters.matching import Asked, answering, highlighted, matching, ranking
from search_svc.application.ports import IndexMissing
from search_svc.domain.facets import Definitions
from search_svc.domain.query import Hit, IndexStatus, Position, Query, Relaxed, Results, ScorePart, Sort
from search_svc.domain.words import Alike

_LIVE: Clause = {"term": {"shown": True}}
_WINDOW = 10_000  # hits of one answer, at most: the engines' default

_WHOLE = "whole"
_SHORTEST_TYPO = 4
_COUNTED = 10_000  # hits; of more the number isn't told
_NOT_SHOWN = [
    "text", "title", "things", "description", "values", "spelling", "numbers", "number_steps",
    "price_steps", "category_levels",
    "rest.description",
]  # fmt: skip
_BY_ID = [{"product_id": "asc"}]
_BY_PRICE = {
    Sort.PRICE_ASC: [{"price_from": "asc"}, {"product_id": "asc"}],
    Sort.PRICE_DESC: [{"price_from": "desc"}, {"product_id": "asc"}],
    Sort.NEWEST: [{"created": "desc"}, {"product_id": "asc"}],
}


class ElasticProductSearch:
    """`definitions` gives what product types say of attributes, `synonyms` what else things are called."""

    def __init__(
        self,
        engine: Engine,
        indices: Indices,
        definitions: Callable[[], Definitions] = dict,
        synonyms: Callable[[], Alike] = lambda: lambda asked: (),
    ):
        self._engine = engine
        self._indices = indices
        self._synonyms = synonyms
        self._definitions: Callable[[], Definitions] = definitions

    async def search(self, query: Query, *, size: int, after: Position | None, relaxed: Relaxed) -> Results:
        asked = Asked.of(query.text, self._synonyms(), fewer=relaxed is Relaxed.FEWER_WORDS)
        if relaxed is not Relaxed.NOTHING:
            asked = asked.corrected(await self._corrections(query.text))
        by_relevance = query.sort is Sort.RELEVANCE and bool(query.text)
        filters = filters_of(query)
        facets = Facets(query, self._definitions(), filters)
        tied: Position | None = None
        body: dict[str, Any] = {
            "query": matching(asked, [_LIVE, *conditions(query)]),
            "post_filter": all_of(filters.values()),
            "aggregations": {**facets.first(), _WHOLE: {"filter": answering(asked)}} if query.text else facets.first(),
            "size": size + 1,
            "track_total_hits": _COUNTED,
            "source_excludes": _NOT_SHOWN,
        }
        if query.text:
            body["highlight"] = highlighted(asked)
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
        explained = await self._explained(asked, [hit["_id"] for hit in found[:size]]) if query.explain else {}
        return Results(
            hits=[_hit(hit, explained.get(hit["_id"], ())) for hit in found[:size]],
            total=min(total["value"], _COUNTED),
            facets=counted.read(second),
            more=len(found) > size,
            relaxed=relaxed,
            whole=not query.text or answer["aggregations"][_WHOLE]["doc_count"] > 0,
            at_least=total["relation"] == "gte" or total["value"] > _COUNTED,
        )

    async def matches(self, text: str) -> bool:
        with translated():
            query = all_of([_LIVE, answering(Asked.of(text, self._synonyms()))])
            answer = await self._engine.client.count(index=PRODUCTS, query=query)
        return bool(answer["count"])

    async def _corrections(self, text: str) -> dict[str, list[str]]:
        """For words that no product has, in small letters, those they may have been meant for; where there is no such
        word, for each the others like it beside itself."""
        term = {"field": "spelling", "size": 2, "prefix_length": 0, "min_word_length": _SHORTEST_TYPO}
        suggest = {mode: {"term": {**term, "suggest_mode": mode}} for mode in ("missing", "always")}
        with translated():
            answer = await self._engine.client.search(
                index=PRODUCTS, size=0, track_total_hits=False, suggest={"text": text, **suggest}
            )
        unknown, others = (
            {entry["text"]: [option["text"] for option in entry["options"]] for entry in answer["suggest"][mode]}
            for mode in suggest
        )
        corrected = {word: options for word, options in unknown.items() if options}
        return corrected or {word: [word, *options] for word, options in others.items() if options}

    async def _explained(self, asked: Asked, ids: Sequence[str]) -> dict[str, list[ScorePart]]:
        """Each part of the ranking asked for by itself: what engines tell of a score is each one's own."""
        if not asked.text or not ids:
            return {}
        found = ranking(asked)
        clauses = [(name, clause, 0.0) for name, clause in found.views.items()]
        clauses += [(name, clause, by) for name, steps in found.factors.items() for clause, by in steps]
        shown: Clause = {"terms": {"product_id": list(ids)}}
        with translated():
            answers = await asyncio.gather(
                *(
                    self._engine.client.search(
                        index=PRODUCTS,
                        query={"bool": {"must": [clause], "filter": [shown]}},
                        size=len(ids),
                        source=False,
                        track_total_hits=False,
                    )
                    for _, clause, _ in clauses
                )
            )
        parts: dict[str, list[ScorePart]] = {product_id: [] for product_id in ids}
        for (name, _, by), answer in zip(clauses, answers, strict=True):
            for hit in answer["hits"]["hits"]:
                parts[hit["_id"]].append(ScorePart(name, by or hit["_score"], factor=bool(by)))
        return parts

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


def _hit(hit: Mapping[str, Any], explanation: Sequence[ScorePart]) -> Hit:
    product = product_from_document(hit["_source"])
    fragments = hit.get("highlight", {}).get("name.shown")
    return Hit(
        product=product,
        score=hit["_score"] or 0.0,
        highlight=fragments[0] if fragments else html.escape(product.name),
        position=tuple(hit["sort"]),
        explanation=explanation,
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
