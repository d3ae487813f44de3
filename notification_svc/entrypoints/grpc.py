"""polymart.notification.v1.NotificationService over the use cases."""

from collections.abc import Mapping
from datetime import datetime

import grpc
from polymart.notification.v1.notification_pb2 import Notification
from polymart.notification.v1.notification_service_pb2 import (
    GetNotificationRequest,
    ListNotificationsRequest,
    ListNotificationsResponse,
)
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceServicer

from chassis.ids import is_uuid
from chassis.postgres import Transaction
from chassis.rpc.paging import PageToken, asked_page, fingerprint
from chassis.rpc.validation import Validator
from notification_svc.application.ports import Filter, Notifications, Position
from notification_svc.application.queries import get_notification, list_notifications
from notification_svc.protos import STAGE, to_proto


class NotificationServicer(NotificationServiceServicer):
    def __init__(self, *, notifications: Notifications[Transaction]):
        self._notifications = notifications

    async def GetNotification(
        self,
        request: GetNotificationRequest,
        context: grpc.aio.ServicerContext[GetNotificationRequest, Notification],
    ) -> Notification:
        Validator(request).done()
        return to_proto(await get_notification(request.notification_id, notifications=self._notifications))

    async def ListNotifications(
        self,
        request: ListNotificationsRequest,
        context: grpc.aio.ServicerContext[ListNotificationsRequest, ListNotificationsResponse],
    ) -> ListNotificationsResponse:
        validator = Validator(request)
        validator.check(not request.status or request.status in STAGE, "status", "isn't a status")
        for name in ("customer_id", "order_id"):
            validator.check("\0" not in getattr(request, name), name, "must not hold control characters")
        size, after = asked_page(request, validator, _position)
        validator.done()
        which = Filter(request.customer_id, request.order_id, STAGE.get(request.status))
        page, rest = await list_notifications(which, after=after, page_size=size, notifications=self._notifications)
        return ListNotificationsResponse(
            notifications=map(to_proto, page),
            next_page_token=PageToken.encode(_token(rest), fingerprint(request)) if rest else "",
        )


def _token(position: Position) -> dict[str, str | int]:
    return {"time": position.create_time.isoformat(), "id": position.notification_id}


def _position(token: Mapping[str, object]) -> Position:
    key = str(token["id"])
    if not is_uuid(key):
        raise ValueError(key)
    return Position(datetime.fromisoformat(str(token["time"])), key)
