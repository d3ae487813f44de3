"""What the use cases need of the store of stock."""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from inventory_svc.domain.allocation import Allocation
from inventory_svc.domain.locations import Location
from inventory_svc.domain.reservations import Change, Hold
from inventory_svc.domain.stock import AvailabilityChanged, Level, Movement


class Book(Protocol):
    """The store within one transaction. Holds and levels it hands out are locked until the transaction ends."""

    async def first_use(self, request_id: str, content: bytes) -> bool:
        """Note a call's id and a digest of what it asks: False if that id was noted before.

        Raises AlreadyExists if it was noted with other content.
        """
        ...

    async def holds(self, order_ids: Collection[str]) -> dict[str, Hold]:
        """The orders' holds, new ones for orders never heard of."""
        ...

    async def levels(self, skus: Collection[str], *, create: bool = False) -> dict[str, Level]:
        """The levels by SKU, without those never stocked; `create` makes rows for these, to be recorded."""
        ...

    async def locations(self) -> list[str]:
        """Every location's id, by priority. They are never removed: read after levels, it has all that these name."""
        ...

    async def record(self, change: Change) -> None:
        """Write the change, and its events to be published."""
        ...


class Warehouse(Protocol):
    """The store of stock. Raises Unavailable where it can't be reached."""

    def transaction(self) -> AbstractAsyncContextManager[Book]: ...

    async def levels(self, skus: Collection[str]) -> dict[str, Level]:
        """The levels by SKU, without those never stocked."""
        ...

    def availabilities(self) -> AsyncIterator[Sequence[AvailabilityChanged]]:
        """The last flip of every SKU, some hundreds at a time, each as it is when it is read."""
        ...


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is held for an order, sorted, and since when."""

    order_id: str
    allocations: tuple[Allocation, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A movement as it was entered; ids rise by SKU."""

    id: int
    movement: Movement
    at: datetime


class Ledger(Protocol):
    """What an operator asks. Raises Unavailable where it can't be reached."""

    async def open_reservations(
        self, *, sku: str, before: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Reservation]:
        """Open ones by age and order id, the oldest first: of one SKU unless that is empty, made before a moment,
        and `after` the time and order id of another."""
        ...

    async def movements(self, sku: str, *, location: str, below: int | None, limit: int) -> list[Entry]:
        """A SKU's movements, the newest first: at one location unless that is empty, with ids `below` one."""
        ...


class Locations(Protocol):
    """Raises Unavailable where it can't be reached."""

    async def add(self, location: Location) -> Location:
        """The location as stored: another's, if the id was taken."""
        ...

    async def update(self, location_id: str, change: Callable[[Location], Location]) -> Location | None:
        """Replace the location by its change; None if there is none. What `change` raises is passed on."""
        ...

    async def page(self, *, after: tuple[int, str] | None, limit: int) -> list[Location]:
        """By priority and id, from `after` those of another."""
        ...
