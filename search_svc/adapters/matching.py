"""A shopper's text in the engine's language: what matches it, and in which order."""

from collections.abc import Sequence
from typing import Any

Clause = dict[str, Any]

# One or two words must all be there; of more, three quarters.
_MOST_TERMS = "2<75%"


def matching(text: str, fuzzy: bool, conditions: Sequence[Clause]) -> Clause:
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
    return {"bool": {"must": required, "should": preferred, "filter": list(conditions)}}


def highlighted(text: str, fuzzy: bool) -> Clause:
    match: Clause = {"query": text, "fuzziness": "AUTO"} if fuzzy else {"query": text}
    return {
        "encoder": "html",
        "pre_tags": ["<em>"],
        "post_tags": ["</em>"],
        "fields": {"name.shown": {"number_of_fragments": 0, "highlight_query": {"match": {"name.shown": match}}}},
    }
