"""What the use cases need: a store, and a provider."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from payment_svc.domain.life import Change
from payment_svc.domain.payments import Attempt, Name, Outcome, Payment, Status


class Provider(Protocol):
    """The firm that moves the money. It does what it is asked once for each key, however often it is asked.

    Raises Unavailable where it can't be reached: then nothing is known of what wasn't answered.
    """

    def submit(self, attempts: Sequence[Attempt]) -> AsyncIterator[Mapping[str, Outcome]]:
        """Ask for these operations, and yield its answers by key as they come in.

        Ends when all are answered or the time limit has passed: the outcome of what is missing is unknown.
        """
        ...

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome | None]:
        """Its record by key: None for one that was not heard of so far, which is no refusal.

        Of a key that is missing nothing is known: it may be under way.
        """
        ...


class Ledger(Protocol):
    """The store within one transaction. What it hands out is locked until the transaction ends."""

    async def payments(self, payment_ids: Collection[str], *, create: bool = False) -> dict[str, Payment]:
        """The payments; `create` makes those never heard of, to be recorded."""
        ...

    async def record(self, change: Change) -> None:
        """Write the change with its ledger entries, and its events to be published."""
        ...


class Payments(Protocol):
    """The store. Raises Unavailable where it can't be reached."""

    def transaction(self, *, request_id: str = "") -> AbstractAsyncContextManager[Ledger]:
        """`request_id` is what led to commands that come from no message."""
        ...

    async def claim(self, limit: int, lease: timedelta) -> list[Attempt]:
        """Take pending attempts whose time has come: nobody else gets them until `lease` has passed."""
        ...

    async def defer(self, attempts: Sequence[Attempt]) -> None:
        """Make each due again after its own delay, unless it was resolved or claimed anew since."""
        ...

    async def remind(self, notice_id: str, payment_id: str, name: Name) -> None:
        """Make an attempt due now if it is pending; once for each notice."""
        ...

    async def get(self, payment_id: str) -> Payment | None: ...

    async def newest(
        self, limit: int, *, status: Status | None = None, before: tuple[datetime, str] | None = None
    ) -> list[Payment]:
        """Payments by creation time and id, descending; `before` is that of the last one seen."""
        ...
