"""Use cases that write, each for a batch and in the transaction of its messages."""

from collections.abc import Iterable
from typing import TypeVar

from chassis.clock import Clock
from chassis.errors import NotFound
from chassis.messaging.envelope import Envelope
from notification_svc.application.ports import Notifications
from notification_svc.domain.notification import Fact, Notification, Report, latest

T = TypeVar("T")


async def notify(
    facts: Iterable[tuple[Fact, Envelope]], *, notifications: Notifications[T], clock: Clock, tx: T
) -> None:
    """Store what customers are to be told, each with the message that caused it, and announce what is new."""
    now = clock.now()
    due: dict[str, tuple[Notification, Envelope]] = {}
    for fact, cause in facts:
        notification = Notification.about(fact, now=now)
        due.setdefault(notification.notification_id, (notification, cause))
    if due:
        await notifications.add(list(due.values()), tx=tx)


async def follow_deliveries(
    reports: Iterable[tuple[str, Report]], *, notifications: Notifications[T], clock: Clock, tx: T
) -> None:
    """Record how far deliveries have come.

    Raises NotFound for a notification that isn't stored. It is always stored before it is announced, so that one was
    lost with its store: its report belongs with the dead letters until the store is back.
    """
    if unknown := await notifications.report(latest(reports), clock.now(), tx=tx):
        raise NotFound(f"notifications {', '.join(sorted(unknown))} aren't stored")
