"""Notifications as polymart.notification.v1 writes them."""

from datetime import UTC

from google.type.money_pb2 import Money as MoneyMessage
from polymart.notification.v1 import notification_pb2 as pb

from chassis.money import Money
from notification_svc.domain.notification import Content, Kind, Line, LowStock, Notification, Stage

STATUS = {
    Stage.NEW: pb.NOTIFICATION_STATUS_NEW,
    Stage.IN_PROGRESS: pb.NOTIFICATION_STATUS_IN_PROGRESS,
    Stage.FAILED: pb.NOTIFICATION_STATUS_FAILED,
    Stage.PROCESSED: pb.NOTIFICATION_STATUS_PROCESSED,
}
STAGE = {status: stage for stage, status in STATUS.items()}
KIND = {kind: pb.NotificationKind.Value(f"NOTIFICATION_KIND_{kind.name}") for kind in Kind}
KIND_OF = {number: kind for kind, number in KIND.items()}


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
        number=notification.number,
        muted=report.muted,
    )
    for name, time in (
        ("create_time", notification.create_time),
        ("update_time", notification.update_time),
        ("start_time", report.start_time),
        ("end_time", report.end_time),
        ("read_time", notification.read_time),
    ):
        if time is not None:
            getattr(message, name).FromDatetime(time)
    return message


def content_to_proto(content: Content) -> pb.NotificationContent:
    message = pb.NotificationContent(
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
        personal_data=content.personal_data,
        refund=content.refund.to_proto() if content.refund else None,
        carrier=content.carrier,
        tracking_number=content.tracking_number,
    )
    if content.low_stock is not None:
        low = content.low_stock
        message.low_stock.CopyFrom(pb.LowStock(sku=low.sku, available=low.available, threshold=low.threshold))
    if content.expire_time is not None:
        message.expire_time.FromDatetime(content.expire_time)
    return message


def content_from_proto(message: pb.NotificationContent) -> Content:
    low = message.low_stock
    return Content(
        order_id=message.order_id,
        total=money(message.total) if message.HasField("total") else None,
        line_count=message.line_count,
        lines=tuple(Line(line.product_name, line.quantity, money(line.line_total)) for line in message.lines),
        failure=message.failure,
        personal_data=message.personal_data,
        low_stock=LowStock(low.sku, low.available, low.threshold) if message.HasField("low_stock") else None,
        expire_time=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
        refund=money(message.refund) if message.HasField("refund") else None,
        carrier=message.carrier,
        tracking_number=message.tracking_number,
    )


def money(message: MoneyMessage) -> Money:
    return Money.from_proto(message)
