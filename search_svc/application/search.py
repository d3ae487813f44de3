"""Answering queries."""

from search_svc.application.ports import ProductSearch
from search_svc.domain.query import Position, Query, Results


async def search_products(
    query: Query, *, size: int, after: Position | None = None, fuzzy: bool = False, index: ProductSearch
) -> Results:
    """One page of hits, with facets over all.

    Typing errors are allowed for only where the text as typed matches nothing at all: always on, that costs clean
    queries their precision. `fuzzy` says how the page before, whose last position is `after`, was found.
    """
    results = await index.search(query, size=size, after=after, fuzzy=fuzzy)
    if results.total or after or fuzzy or not query.text:
        return results
    if query.filtered and await index.matches(query.text):
        return results
    return await index.search(query, size=size, after=None, fuzzy=True)
