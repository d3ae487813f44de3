"""What the use cases need of the store of stock."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from inventory_svc.domain.reservations import Change, Hold
from inventory_svc.domain.stock import Level


class Book(Protocol):
    """The store within one transaction. What it hands out is locked until the transaction ends."""

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

    async def record(self, change: Change) -> None:
        """Write the change, and its events to be published."""
        ...


class Warehouse(Protocol):
    """The store. Raises Unavailable where it can't be reached."""

    def transaction(self) -> AbstractAsyncContextManager[Book]: ...

    async def levels(self, skus: Collection[str]) -> dict[str, Level]:
        """The levels by SKU, without those never stocked."""
        ...

    def every_level(self) -> AsyncIterator[Sequence[Level]]:
        """All levels, some hundreds at a time, each as it is when it is read."""
        ...
