"""Use cases that read."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from chassis.errors import NotFound
from notification_svc.application.ports import Filter, Notifications, Position
from notification_svc.domain.notification import Notification

T = TypeVar("T")


async def get_notification(notification_id: str, *, notifications: Notifications[T]) -> Notification:
    """Raises NotFound."""
    if (found := await notifications.get(notification_id)) is None:
        raise not_found([notification_id])
    return found


async def list_notifications(
    which: Filter, *, after: Position | None, page_size: int, notifications: Notifications[T]
) -> tuple[Sequence[Notification], Position | None]:
    """A page, newest first, and where the next one begins: None on the last."""
    found = await notifications.page(which, after, page_size + 1)
    page = found[:page_size]
    if len(found) <= page_size:
        return page, None
    return page, Position(page[-1].create_time, page[-1].notification_id)


def not_found(notification_ids: Iterable[str]) -> NotFound:
    return NotFound(f"not found: notification {', '.join(notification_ids)}", reason="NOTIFICATION_NOT_FOUND")
