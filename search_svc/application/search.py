"""Answering queries."""

from dataclasses import replace

from search_svc.application.ports import ProductSearch
from search_svc.domain.query import Position, Query, Relaxed, Results


async def search_products(
    query: Query,
    *,
    size: int,
    after: Position | None = None,
    relaxed: Relaxed = Relaxed.NOTHING,
    index: ProductSearch,
) -> Results:
    """One page of hits, with facets over all.

    Words are taken for misspelt, or left out, only where no product at all has all that the text asks for, whatever
    the filters: always on, either costs clean queries their precision. `relaxed` says how the page before, whose last
    position is `after`, was found.
    """
    results = await index.search(query, size=size, after=after, relaxed=relaxed)
    if results.whole or after or relaxed is not Relaxed.NOTHING or not query.text:
        return results
    if query.filtered and await index.matches(query.text):
        return results
    meant = await index.search(query, size=size, after=None, relaxed=Relaxed.TYPOS)
    if meant.whole:
        return meant
    if results.total:
        return replace(results, relaxed=Relaxed.FEWER_WORDS)
    return await index.search(query, size=size, after=None, relaxed=Relaxed.FEWER_WORDS)
