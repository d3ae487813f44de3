"""Completions and other spellings, from the index's own words."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from search_svc.adapters.engine import Engine, translated
from search_svc.adapters.facets import Clause
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.terms import SEPARATOR
from search_svc.application.ports import Completed, IndexMissing
from search_svc.domain.suggestion import Completion, CompletionKind, begun_by, words

_LIVE: Clause = {"term": {"shown": True}}
_BRANDS = 1
_CATEGORIES = 1
_LEVELS = 50
_SHORTEST_TYPO = 4
_CORRECTIONS = 3
_MODES = ("missing", "popular")
_WORDS = {"field": "spelling", "size": 2, "prefix_length": 1, "min_word_length": 4}


class ElasticSuggestions:
    def __init__(self, engine: Engine):
        self._engine = engine

    async def complete(self, text: str, size: int) -> Completed:
        products, brands, categories = await self._search(
            _products(text, size), _counted("brand", text, "brand"), _counted("categories", text, "category_levels")
        )
        found = Completed(
            products=_completions(products),
            brands=[bucket["key"] for bucket in _buckets(brands)][:_BRANDS],
            categories=list(islice(_named(text, categories), _CATEGORIES)),
        )
        if found.products or found.brands or found.categories or len(text) < _SHORTEST_TYPO:
            return found
        (products,) = await self._search(_products(text, size, fuzzy=True))
        return Completed(products=_completions(products))

    async def corrections(self, text: str) -> Sequence[str]:
        with translated():
            answer = await self._engine.client.search(
                index=PRODUCTS,
                size=0,
                track_total_hits=False,
                # Words that aren't there or, where all are, such as are there more often.
                suggest={"text": text, **{mode: {"term": {**_WORDS, "suggest_mode": mode}} for mode in _MODES}},
            )
        for mode in _MODES:
            entries = answer["suggest"][mode]
            if found := _respelt([(e["text"], [option["text"] for option in e["options"]]) for e in entries]):
                return found
        return []

    async def _search(self, *bodies: Clause) -> Sequence[Mapping[str, Any]]:
        lines = [line for body in bodies for line in ({"index": PRODUCTS}, body)]
        with translated():
            answer = await self._engine.client.msearch(searches=lines)
        for response in answer["responses"]:
            if "error" in response:
                if response["error"]["type"] == "index_not_found_exception":
                    raise IndexMissing
                raise IndexMissing(f"the search engine can't complete: {response['error']['type']}")
        responses: Sequence[Mapping[str, Any]] = answer["responses"]
        return responses


def _respelt(entries: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Texts of the words typed and what each may be meant for: the likeliest of each, then one in another way."""
    best = [options[0] if options else word for word, options in entries]
    found = [best]
    for place, (word, options) in enumerate(entries):
        found += [[*best[:place], other, *best[place + 1 :]] for other in (*options[1:], *([word] if options else []))]
    typed = [word for word, _ in entries]
    texts = [" ".join(each) for each in found if each != typed]
    return list(dict.fromkeys(texts))[:_CORRECTIONS]


def _products(text: str, size: int, *, fuzzy: bool = False) -> Clause:
    """Each word typed begins a word of the name; what the text itself begins, or stands in the name as it is, first."""
    match: Clause = {"query": text, "operator": "and"}
    if fuzzy:
        match |= {"fuzziness": "AUTO", "prefix_length": 1, "max_expansions": 50}
    preferred: list[Clause] = [
        {"constant_score": {"filter": {"prefix": {"name.start": {"value": text}}}, "boost": 20}},
        {"constant_score": {"filter": {"match_phrase_prefix": {"name.shown": {"query": text}}}, "boost": 5}},
    ]
    return {
        "query": {
            "bool": {
                "must": [{"match": {"name.prefixes": match}}],
                "should": preferred,
                "filter": [_LIVE],
            }
        },
        # Names may be alike.
        "size": 2 * size,
        "sort": [{"_score": "desc"}, {"product_id": "asc"}],
        "_source": ["product_id", "name"],
        "track_total_hits": False,
    }


def _counted(field: str, text: str, by: str) -> Clause:
    match = {f"{field}.prefixes": {"query": text, "operator": "and"}}
    order = [{"_count": "desc"}, {"_key": "asc"}]
    return {
        "query": {"bool": {"filter": [_LIVE, {"match": match}]}},
        "aggs": {"values": {"terms": {"field": by, "size": _LEVELS, "order": order}}},
        "size": 0,
        "track_total_hits": False,
    }


def _buckets(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    buckets: Sequence[Mapping[str, Any]] = answer["aggregations"]["values"]["buckets"]
    return [bucket for bucket in buckets if bucket["key"]]


def _named(text: str, answer: Mapping[str, Any]) -> list[str]:
    """The categories whose own name has what was typed last, and whose path all of it: those of the products found lie
    above and below them too."""
    typed = words(text)
    found = []
    for bucket in _buckets(answer):
        category = bucket["key"].partition(SEPARATOR)[2]
        if begun_by(typed[-1:], words(category.rpartition(" > ")[2])) and begun_by(typed, words(category)):
            found.append(category)
    return found


def _completions(answer: Mapping[str, Any]) -> list[Completion]:
    sources = (hit["_source"] for hit in answer["hits"]["hits"])
    return [Completion(source["name"], CompletionKind.PRODUCT, source["product_id"]) for source in sources]
