"""Filling a missing index from the services that own the data."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from search_svc.application.ports import DocumentRefused, Index, RebuildLease, Sources
from search_svc.application.projection import apply_availability, apply_categories, apply_products

log = structlog.get_logger(__name__)

T = TypeVar("T")

LEASE_SECONDS = 15.0


async def rebuild(*, holder: str, lease: RebuildLease, index: Index, sources: Sources) -> bool:
    """Create the index where it is missing and fill it, unless another replica does.

    True if this call has completed it. Events may be applied before, meanwhile and after, and another replica may
    begin again where this one is slow: versions decide. Raises Unavailable; then the lease runs out.
    """
    await lease.prepare()
    if not await lease.take(holder, LEASE_SECONDS):
        return False
    log.info("rebuilding the index")
    # Products last, so that they find their categories and the availability of their SKUs when they come.
    async for categories in sources.categories():
        await _apply(categories, lambda items: apply_categories(items, index=index))
        if not await lease.take(holder, LEASE_SECONDS):
            return False
    async for news in sources.availability():
        await _apply(list(news.items()), lambda items: apply_availability(items, index=index))
        if not await lease.take(holder, LEASE_SECONDS):
            return False
    async for products in sources.products():
        await _apply(products, lambda items: apply_products(items, index=index))
        if not await lease.take(holder, LEASE_SECONDS):
            return False
    return await lease.complete(holder)


async def _apply(items: Sequence[T], apply: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """What the engine won't take is left out, and said: one bad product must not keep the shop without search."""
    try:
        await apply(items)
    except DocumentRefused as error:
        if len(items) == 1:
            log.error("left out of the index", item=str(items[0])[:200], error=str(error))
            return
        middle = len(items) // 2
        await _apply(items[:middle], apply)
        await _apply(items[middle:], apply)
