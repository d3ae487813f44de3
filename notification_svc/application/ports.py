"""What the use cases need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from chassis.messaging.envelope import Envelope
from notification_svc.domain.notification import Notification, Report, Stage

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which notifications; what is empty doesn't matter."""

    customer_id: str = ""
    order_id: str = ""
    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Between two notifications of a list: after the one with these."""

    create_time: datetime
    notification_id: str


class Notifications(Protocol[T_contra]):
    """The notifications there are. `tx` is the transaction a write belongs to. Raises errors.Unavailable."""

    async def add(self, causes: Sequence[tuple[Notification, Envelope]], *, tx: T_contra) -> None:
        """Store those that aren't there yet, and publish NotificationCreated of each, caused by its message."""
        ...

    async def report(self, reports: Mapping[str, Report], now: datetime, *, tx: T_contra) -> set[str]:
        """Merge each notification's report into it. Returns the ids that nobody knows."""
        ...

    async def get(self, notification_id: str) -> Notification | None: ...

    async def page(self, which: Filter, after: Position | None, limit: int) -> Sequence[Notification]:
        """Newest first, at most `limit`."""
        ...
