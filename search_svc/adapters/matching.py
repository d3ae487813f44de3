"""A shopper's text in the engine's language: what matches it, and in which order.

The score of a hit is the sum of several views of the text, none of which is good alone, times a few mild factors.
docs/adr/0017 has what was measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_svc.adapters.documents import code_forms
from search_svc.domain.words import Alike, Term, terms, thing, words

Clause = dict[str, Any]

# One or two terms must all be there; of more, three quarters.
_MOST_TERMS = "2<75%"
_ANY_TERM = "1"

_NAME = 2.0
_ALL_FIELDS = 2.0
_CODE = 1_000.0
_FIELDS = ["title^2", "brand.words", "values", "description"]

_IS_THE_THING = 1.6
_OUT_OF_STOCK = 0.9
# From such a popularity on, that of 1, 10 and 100 units sold of late, times so much; together at most 1.1.
_POPULAR = ((1, 1.02), (3.25, 1.03), (6.5, 1.05))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a text asks for. `text` is it as written, or as corrected."""

    text: str
    terms: Sequence[Term]
    fewer: bool = False

    @classmethod
    def of(cls, text: str, alike: Alike = lambda asked: (), *, fewer: bool = False) -> "Asked":
        return cls(text, terms(text, alike), fewer)

    def corrected(self, corrections: Mapping[str, Sequence[str]]) -> "Asked":
        """With words replaced by those that may have been meant; the words misspelt are in small letters."""
        changed = [Term(tuple(corrections.get(term.forms[0].lower(), term.forms))) for term in self.terms]
        return Asked(" ".join(term.forms[0] for term in changed), changed, self.fewer)


@dataclass(frozen=True, slots=True)
class Ranking:
    """A score is the sum of the `views` a document matches, the first of them required, times all `factors` whose
    clause it matches."""

    views: Mapping[str, Clause]
    factors: Mapping[str, Sequence[tuple[Clause, float]]] = field(default_factory=dict)

    def query(self, conditions: Sequence[Clause]) -> Clause:
        required, *preferred = self.views.values()
        matched = {"bool": {"must": [required], "should": preferred, "filter": list(conditions)}}
        functions = [{"filter": clause, "weight": by} for steps in self.factors.values() for clause, by in steps]
        return {
            "function_score": {
                "query": matched,
                "functions": functions,
                "score_mode": "multiply",
                "boost_mode": "multiply",
            }
        }


def ranking(asked: Asked) -> Ranking:
    text = " ".join(asked.text.split())
    found = {
        "bool": {
            "should": [_term("text", term) for term in asked.terms],
            "minimum_should_match": _ANY_TERM if asked.fewer else _MOST_TERMS,
        }
    }
    views: dict[str, Clause] = {
        "words": {"bool": {"should": [found, _code(text)], "minimum_should_match": 1}},
        "name": {"bool": {"should": [_term("title", term, _NAME) for term in asked.terms]}},
        "together": _together(asked),
        "fields": {
            "multi_match": {
                "query": text,
                "type": "cross_fields",
                "operator": "and",
                "tie_breaker": 0.3,
                "fields": _FIELDS,
                "boost": _ALL_FIELDS,
            }
        },
    }
    factors: dict[str, list[tuple[Clause, float]]] = {
        "popularity": [({"range": {"popularity": {"gte": least}}}, by) for least, by in _POPULAR],
        "out of stock": [({"term": {"in_stock": False}}, _OUT_OF_STOCK)],
    }
    meant = thing(asked.text)
    if named := next((term for term in asked.terms if meant in words(term.forms[0])), None):
        factors = {"the thing itself": [(_term("things", named), _IS_THE_THING)], **factors}
    return Ranking(views, factors)


def matching(asked: Asked, conditions: Sequence[Clause]) -> Clause:
    if not asked.text:
        return {"bool": {"filter": list(conditions)}}
    return ranking(asked).query(conditions)


def answering(asked: Asked) -> Clause:
    """Documents that have all that is asked for."""
    return {"bool": {"should": [_together(asked), _code(asked.text)]}}


def _code(text: str) -> Clause:
    return {"constant_score": {"filter": {"terms": {"codes": sorted(code_forms(text.lower()))}}, "boost": _CODE}}


def _together(asked: Asked) -> Clause:
    return {"bool": {"must": [_term("text", term) for term in asked.terms] or [{"match_none": {}}]}}


def _term(where: str, term: Term, boost: float = 1.0) -> Clause:
    """The best of the term's forms, each of which must be there whole."""
    matches = [{"match": {where: {"query": form, "operator": "and", "boost": boost}}} for form in term.forms]
    return matches[0] if len(matches) == 1 else {"dis_max": {"queries": matches}}


def highlighted(asked: Asked) -> Clause:
    text = " ".join(dict.fromkeys([asked.text, *(form for term in asked.terms for form in term.forms)]))
    return {
        "encoder": "html",
        "pre_tags": ["<em>"],
        "post_tags": ["</em>"],
        "fields": {"name.shown": {"number_of_fragments": 0, "highlight_query": {"match": {"name.shown": text}}}},
    }
