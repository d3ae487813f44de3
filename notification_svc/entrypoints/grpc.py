"""polymart.notification.v1.NotificationService over the use cases."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import grpc
from polymart.notification.v1.notification_pb2 import Notification
from polymart.notification.v1.notification_service_pb2 import (
    GetNotificationRequest,
    ListNotificationsRequest,
    ListNotificationsResponse,
    MarkReadRequest,
    MarkReadResponse,
    RetryNotificationRequest,
    WatchNotificationsRequest,
)
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceServicer

from chassis.clock import Clock
from chassis.ids import is_uuid
from chassis.postgres import Transaction
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from notification_svc.application.commands import mark_read, retry_notification
from notification_svc.application.ports import Filter, Notifications, Position
from notification_svc.application.queries import get_notification, list_notifications
from notification_svc.application.watching import NotificationWatch
from notification_svc.protos import KIND_OF, STAGE, to_proto

Context = grpc.aio.ServicerContext[object, object]

_MOST_MARKED = 500


class NotificationServicer(NotificationServiceServicer):
    def __init__(self, *, notifications: Notifications[Transaction], watch: NotificationWatch, clock: Clock):
        self._notifications = notifications
        self._watch = watch
        self._clock = clock

    async def GetNotification(self, request: GetNotificationRequest, context: Context) -> Notification:
        Validator(request).done()
        return to_proto(await get_notification(request.notification_id, notifications=self._notifications))

    async def ListNotifications(self, request: ListNotificationsRequest, context: Context) -> ListNotificationsResponse:
        validator = Validator(request)
        validator.check(not request.status or request.status in STAGE, "status", "isn't a status")
        validator.check(not request.kind or request.kind in KIND_OF, "kind", "isn't a kind")
        for name in ("customer_id", "order_id"):
            validator.check("\0" not in getattr(request, name), name, "must not hold control characters")
        size, after = asked_page(request, validator, _position)
        validator.done()
        which = Filter(
            customer_id=request.customer_id,
            order_id=request.order_id,
            stage=STAGE.get(request.status),
            kind=KIND_OF.get(request.kind),
            unread=request.unread,
        )
        page, rest = await list_notifications(which, after=after, page_size=size, notifications=self._notifications)
        return ListNotificationsResponse(
            notifications=map(to_proto, page),
            next_page_token=PageToken.encode(_token(rest), fingerprint(request)) if rest else "",
        )

    async def MarkRead(self, request: MarkReadRequest, context: Context) -> MarkReadResponse:
        validator = Validator(request)
        ids = request.notification_ids
        validator.check(len(ids) <= _MOST_MARKED, "notification_ids", f"must be at most {_MOST_MARKED}")
        validator.check("\0" not in request.customer_id, "customer_id", "must not hold control characters")
        validator.done()
        marked = await mark_read(
            request.customer_id,
            list(ids),
            notifications=self._notifications,
            clock=self._clock,
        )
        return MarkReadResponse(notifications=map(to_proto, marked))

    async def WatchNotifications(
        self, request: WatchNotificationsRequest, context: Context
    ) -> AsyncIterator[Notification]:
        validator = Validator(request)
        validator.check("\0" not in request.customer_id, "customer_id", "must not hold control characters")
        validator.check(request.after_number >= 0, "after_number", "must not be negative")
        validator.done()
        given = request.after_number if request.HasField("after_number") else None
        after = await self._watch.head(request.customer_id) if given is None else given
        # Tells the caller that what is created from now on is in the stream.
        await context.send_initial_metadata(())
        async for notification in self._watch.watch(request.customer_id, after):
            yield to_proto(notification)

    async def RetryNotification(self, request: RetryNotificationRequest, context: Context) -> Notification:
        Validator(request).done()
        return to_proto(
            await retry_notification(request.notification_id, notifications=self._notifications, clock=self._clock)
        )


def _token(position: Position) -> dict[str, str | int]:
    return {"time": position.create_time.isoformat(), "id": position.notification_id}


def _position(token: Mapping[str, object]) -> Position:
    key = str(token["id"])
    if not is_uuid(key):
        raise ValueError(key)
    return Position(datetime.fromisoformat(str(token["time"])), key)
