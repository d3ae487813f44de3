"""Completions while typing, and other spellings of what found little."""

from collections.abc import Sequence
from dataclasses import replace

from search_svc.application.ports import Completions, ProductSearch, Spelling
from search_svc.domain.query import Query, Relaxed, Results
from search_svc.domain.suggestion import Completion, begun_by, merged, words

_SEARCHES = 2
# Hits by the text as it was typed, above which nobody needs another spelling, and how many times more another finds.
_FEW = 5
_TIMES = 10


async def complete(text: str, *, size: int, popular: Sequence[str], completions: Completions) -> list[Completion]:
    """At most `size` completions. `popular` are texts that many searched for, the most frequent first."""
    typed = words(text)
    if not typed:
        return []
    searches = [each for each in popular if begun_by(typed, words(each)) and words(each) != typed][:_SEARCHES]
    found = await completions.complete(text, size)
    return merged(searches, found.brands, found.categories, found.products, size)


async def did_you_mean(query: Query, results: Results, *, spelling: Spelling, index: ProductSearch) -> str:
    """Another spelling of the text, from the index's own words, by which far more is found; empty if there is none."""
    typed = 0 if results.relaxed is Relaxed.TYPOS else results.total
    if not query.text or typed > _FEW:
        return ""
    for candidate in await spelling.corrections(query.text):
        other = replace(query, text=candidate, facets=False)
        if (await index.search(other, size=1, after=None, relaxed=Relaxed.NOTHING)).total > typed * _TIMES:
            return candidate
    return ""
