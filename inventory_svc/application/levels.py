"""Counting, adjusting and reading stock levels."""

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from chassis.errors import NotFound
from chassis.ids import NewId, uuid7
from inventory_svc.application.ports import Book, Warehouse
from inventory_svc.domain.reservations import Change
from inventory_svc.domain.stock import Adjustment, Level, adjust, count


async def set_stock(
    counts: Mapping[str, int], *, request_id: str, warehouse: Warehouse, new_id: NewId = uuid7
) -> list[Level]:
    """Set units on hand, all or none, and return the levels; a repeated `request_id` only returns them.

    Raises FailedPrecondition if a SKU would have less than is reserved, AlreadyExists for an id used before.
    """
    async with warehouse.transaction() as book:
        if not request_id or await book.first_use(request_id, _digest("set", sorted(counts.items()))):
            levels = await book.levels(counts, create=True)
            tally = count(levels, counts, operation_id=request_id or new_id())
            await book.record(Change.of(tally, list(counts)))
        return await _levels_now(counts, book)


async def adjust_stock(adjustments: Sequence[Adjustment], *, request_id: str, warehouse: Warehouse) -> list[Level]:
    """Add and take units, all or none, and return the levels; a repeated `request_id` only returns them.

    Raises FailedPrecondition if a SKU would have less than is reserved, AlreadyExists for an id used before.
    """
    skus = [a.sku for a in adjustments]
    async with warehouse.transaction() as book:
        if await book.first_use(request_id, _digest("adjust", sorted((a.sku, a.delta) for a in adjustments))):
            levels = await book.levels(skus, create=True)
            tally = adjust(levels, adjustments, operation_id=request_id)
            await book.record(Change.of(tally, skus))
        return await _levels_now(skus, book)


async def get_stock(sku: str, *, warehouse: Warehouse) -> Level:
    """Raises NotFound if the SKU was never stocked."""
    levels = await warehouse.levels([sku])
    if sku not in levels:
        raise NotFound(f"SKU {sku} was never stocked", reason="SKU_NOT_STOCKED")
    return levels[sku]


async def batch_get_stock(skus: Sequence[str], *, warehouse: Warehouse) -> list[Level]:
    """The levels of those that were ever stocked, in the order asked for."""
    levels = await warehouse.levels(set(skus))
    return [levels[sku] for sku in skus if sku in levels]


def every_level(*, warehouse: Warehouse) -> AsyncIterator[Sequence[Level]]:
    """All levels, some hundreds at a time: for building projections; versions tell what is newer."""
    return warehouse.every_level()


async def _levels_now(skus: Collection[str], book: Book) -> list[Level]:
    levels = await book.levels(skus)
    return [levels[sku] for sku in skus if sku in levels]


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()
