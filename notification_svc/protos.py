"""Notifications as polymart.notification.v1 writes them."""

from google.type.money_pb2 import Money as MoneyMessage
from polymart.notification.v1 import notification_pb2 as pb

from chassis.money import Money
from notification_svc.domain.notification import Content, Kind, Line, Notification, Stage

STATUS = {
    Stage.NEW: pb.NOTIFICATION_STATUS_NEW,
    Stage.IN_PROGRESS: pb.NOTIFICATION_STATUS_IN_PROGRESS,
    Stage.FAILED: pb.NOTIFICATION_STATUS_FAILED,
    Stage.PROCESSED: pb.NOTIFICATION_STATUS_PROCESSED,
}
STAGE = {status: stage for stage, status in STATUS.items()}
KIND = {
    Kind.WELCOME: pb.NOTIFICATION_KIND_WELCOME,
    Kind.ORDER_CONFIRMED: pb.NOTIFICATION_KIND_ORDER_CONFIRMED,
    Kind.ORDER_REJECTED: pb.NOTIFICATION_KIND_ORDER_REJECTED,
    Kind.ORDER_CANCELLED: pb.NOTIFICATION_KIND_ORDER_CANCELLED,
}


def to_proto(notification: Notification) -> pb.Notification:
    report = notification.report
    message = pb.Notification(
        notification_id=notification.notification_id,
        customer_id=notification.fact.customer_id,
        kind=KIND[notification.fact.kind],
        status=STATUS[report.stage],
        content=content_to_proto(notification.fact.content),
        failure=report.failure,
        message_id=report.message_id,
        attempt=report.attempt,
    )
    message.create_time.FromDatetime(notification.create_time)
    message.update_time.FromDatetime(notification.update_time)
    return message


def content_to_proto(content: Content) -> pb.NotificationContent:
    return pb.NotificationContent(
        order_id=content.order_id,
        total=content.total.to_proto() if content.total else None,
        line_count=content.line_count,
        lines=[
            pb.NotificationLine(
                product_name=line.product_name, quantity=line.quantity, line_total=line.line_total.to_proto()
            )
            for line in content.lines
        ],
        failure=content.failure,
    )


def content_from_proto(message: pb.NotificationContent) -> Content:
    return Content(
        order_id=message.order_id,
        total=money(message.total) if message.HasField("total") else None,
        line_count=message.line_count,
        lines=tuple(Line(line.product_name, line.quantity, money(line.line_total)) for line in message.lines),
        failure=message.failure,
    )


def money(message: MoneyMessage) -> Money:
    return Money.from_proto(message)
