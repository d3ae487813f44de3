"""Use cases that write. Those of messages do it for a batch and in its transaction."""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar

from chassis.clock import Clock
from chassis.errors import NotFound
from chassis.messaging.envelope import Envelope
from notification_svc.application.ports import Notifications
from notification_svc.application.queries import not_found
from notification_svc.domain.notification import Fact, Notification, Report, latest

T = TypeVar("T")


async def notify(
    facts: Iterable[tuple[Fact, Envelope]], *, notifications: Notifications[T], clock: Clock, tx: T
) -> None:
    """Store what is to be told, each with the message that caused it, and announce what is new."""
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


async def forget_customers(
    customer_ids: Collection[str], *, notifications: Notifications[T], clock: Clock, tx: T
) -> None:
    """Drop what erased customers were told."""
    await notifications.forget(customer_ids, clock.now(), tx=tx)


async def retry_notification(notification_id: str, *, notifications: Notifications[T], clock: Clock) -> Notification:
    """Have one delivered after all. Raises NotFound, FailedPrecondition unless it FAILED."""
    retried = await notifications.retry(notification_id, lambda notification: notification.retried(now=clock.now()))
    if retried is None:
        raise not_found([notification_id])
    return retried


async def mark_read(
    customer_id: str, notification_ids: Sequence[str], *, notifications: Notifications[T], clock: Clock
) -> Sequence[Notification]:
    """Mark all of them as read. Raises NotFound, and marks none, if one isn't this customer's."""
    found = await notifications.mark_read(customer_id, set(notification_ids), clock.now())
    if missing := [key for key in notification_ids if key not in found]:
        raise not_found(missing)
    return [found[key] for key in notification_ids]
