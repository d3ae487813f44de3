"""Counting, adjusting, receiving, configuring and reading stock."""

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence

from chassis.errors import NotFound
from chassis.ids import NewId, uuid7
from inventory_svc.application.ports import Book, Warehouse
from inventory_svc.domain.locations import unknown_locations
from inventory_svc.domain.reservations import Change
from inventory_svc.domain.stock import (
    Adjustment,
    AvailabilityChanged,
    Count,
    Kind,
    Level,
    Settings,
    Tally,
    adjust,
    configure,
    count,
)

Levels = dict[str, Level]


async def set_stock(
    counts: Sequence[Count], *, request_id: str, warehouse: Warehouse, new_id: NewId = uuid7
) -> list[Level]:
    """Set units on hand, all or none, and return the levels; a repeated `request_id` only returns them.

    Raises NotFound for a location that doesn't exist, FailedPrecondition if one would have less than is reserved
    there, AlreadyExists for an id used before.
    """
    digest = _digest("set", sorted((c.sku, c.location, c.on_hand) for c in counts))
    skus, places = _ordered(c.sku for c in counts), {c.location for c in counts}
    return await _change(
        skus, places, request_id, digest, lambda levels: count(levels, counts, request_id or new_id()), warehouse
    )


async def adjust_stock(
    adjustments: Sequence[Adjustment], *, request_id: str, warehouse: Warehouse, kind: Kind = Kind.ADJUST
) -> list[Level]:
    """Add and take units, all or none, and return the levels; a repeated `request_id` only returns them.

    Raises NotFound for a location that doesn't exist, FailedPrecondition if one would have less than is reserved
    there, AlreadyExists for an id used before.
    """
    digest = _digest(kind, sorted((a.sku, a.location, a.delta, a.reason) for a in adjustments))
    skus, places = _ordered(a.sku for a in adjustments), {a.location for a in adjustments}
    return await _change(
        skus, places, request_id, digest, lambda levels: adjust(levels, adjustments, request_id, kind), warehouse
    )


async def configure_stock(settings: Sequence[Settings], *, request_id: str, warehouse: Warehouse) -> list[Level]:
    """Set safety stock and low stock, and return the levels; a repeated `request_id` only returns them.

    Raises AlreadyExists for an id used before.
    """
    digest = _digest("configure", sorted((s.sku, str(s.safety_stock), str(s.low_stock)) for s in settings))
    skus = _ordered(s.sku for s in settings)
    return await _change(skus, set(), request_id, digest, lambda levels: configure(levels, settings), warehouse)


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


def every_availability(*, warehouse: Warehouse) -> AsyncIterator[Sequence[AvailabilityChanged]]:
    """The last flip of every SKU, some hundreds at a time: for building projections; versions tell what is newer."""
    return warehouse.availabilities()


async def _change(
    skus: Sequence[str],
    places: Collection[str],
    request_id: str,
    digest: bytes,
    change: Callable[[Levels], Tally],
    warehouse: Warehouse,
) -> list[Level]:
    async with warehouse.transaction() as book:
        if not request_id or await book.first_use(request_id, digest):
            await _refuse_unknown(places, book)
            tally = change(await book.levels(skus, create=True))
            await book.record(Change.of(tally, skus))
        levels = await book.levels(skus)
        return [levels[sku] for sku in skus if sku in levels]


async def _refuse_unknown(places: Collection[str], book: Book) -> None:
    if places and (unknown := set(places) - set(await book.locations())):
        raise unknown_locations(sorted(unknown))


def _ordered(skus: Iterable[str]) -> list[str]:
    """Each once, in the order of their first."""
    return list(dict.fromkeys(skus))


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()
