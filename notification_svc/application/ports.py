"""What the use cases need."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from chassis.messaging.envelope import Envelope
from notification_svc.domain.notification import Kind, Notification, Report, Stage

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which notifications; what is empty doesn't matter."""

    customer_id: str = ""
    order_id: str = ""
    stage: Stage | None = None
    kind: Kind | None = None
    unread: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """Between two notifications of a list: after the one with these."""

    create_time: datetime
    notification_id: str


class Feed(Protocol):
    """Each customer's notifications in the order of their numbers, which is that of their commits: whoever has seen a
    number has seen all before it. Raises errors.Unavailable."""

    async def heads(self, customer_ids: Collection[str]) -> Mapping[str, int]:
        """The highest number of each that has one."""
        ...

    async def after(self, customer_id: str, number: int, limit: int) -> Sequence[Notification]:
        """The first `limit` with a higher number."""
        ...


class Notifications(Protocol[T_contra]):
    """The notifications there are. `tx` is the transaction a write belongs to. Raises errors.Unavailable."""

    async def add(self, causes: Sequence[tuple[Notification, Envelope]], *, tx: T_contra) -> None:
        """Store those that aren't there yet, and publish NotificationCreated of each, caused by its message.

        What an erased customer would be told is left out."""
        ...

    async def report(self, reports: Mapping[str, Report], now: datetime, *, tx: T_contra) -> set[str]:
        """Merge each notification's report into it. Returns the ids that nobody knows."""
        ...

    async def forget(self, customer_ids: Collection[str], now: datetime, *, tx: T_contra) -> None:
        """Drop what these customers were told: of a notification is left that it was, and whether it was delivered."""
        ...

    async def retry(self, notification_id: str, change: Callable[[Notification], Notification]) -> Notification | None:
        """Replace one by `change` of it, with nobody in between, and publish NotificationRetried. None if there is
        none; what `change` raises, it raises."""
        ...

    async def mark_read(
        self, customer_id: str, notification_ids: Collection[str], now: datetime
    ) -> Mapping[str, Notification]:
        """Those of them that are this customer's, by id: all marked if it is all of them, else none."""
        ...

    async def get(self, notification_id: str) -> Notification | None: ...

    async def page(self, which: Filter, after: Position | None, limit: int) -> Sequence[Notification]:
        """Newest first, at most `limit`."""
        ...
