"""What the engine that answers can do, where engines differ.

    if (await engine.features()).multi_word_synonyms: ...

The tests try each flag on each engine: a flag that says no more than the truth, or less, fails there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Features:
    """`kind`: "elasticsearch", "opensearch" or "osmem"; `version`: its own, of OpenSearch's or Elasticsearch's line.

    durable: what it acknowledged outlives its end.
    refresh: what is written is seen by searches after a refresh; without it, at once.
    multi_word_synonyms: "solid state drive => ssd" finds documents with either.
    collate: a phrase suggester leaves out what its `collate` query doesn't find.
    normalized_buckets: the buckets of a keyword with a normalizer bear normalized values; without it, raw ones.
    scripts: painless, with loops and in updates; without it, formulas in scores alone.
    shown_scores: scores are compared with the digits they are shown with; without it, with more.
    keyword_limit: a keyword over 32,766 bytes is refused.
    """

    kind: str
    version: str
    durable: bool = True
    refresh: bool = True
    multi_word_synonyms: bool = True
    collate: bool = True
    normalized_buckets: bool = True
    scripts: bool = True
    shown_scores: bool = True
    keyword_limit: bool = True


def features_of(answer: Mapping[str, Any]) -> Features:
    """By what an engine says of itself at its root. One that is unknown is taken for Elasticsearch."""
    told = answer.get("version", {})
    number = str(told.get("number", ""))
    # It calls itself OpenSearch, but for this.
    if told.get("build_hash") == "osmem":
        return Features(
            "osmem",
            number,
            durable=False,
            refresh=False,
            multi_word_synonyms=False,
            collate=False,
            normalized_buckets=False,
            scripts=False,
            shown_scores=False,
            keyword_limit=False,
        )
    return Features("opensearch" if told.get("distribution") == "opensearch" else "elasticsearch", number)
