"""What notification_svc reacts to."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TypeVar

from google.protobuf.message import Message
from polymart.customer.v1.events_pb2 import CustomerErased, CustomerRegistered, EmailVerificationRequested
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationMuted, NotificationSending, NotificationSent
from polymart.inventory.v1.events_pb2 import StockRanLow
from polymart.order.v1.events_pb2 import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderRefunded,
    OrderRejected,
    OrderShipped,
)
from polymart.order.v1.order_pb2 import OrderLine

from chassis.clock import Clock
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.money import Money
from notification_svc.application.commands import follow_deliveries, forget_customers, notify
from notification_svc.application.ports import Notifications
from notification_svc.domain.notification import (
    LINES_SHOWN,
    MERCHANT,
    Content,
    Fact,
    Kind,
    Line,
    LowStock,
    Report,
    Stage,
)
from notification_svc.protos import money

T = TypeVar("T")


def handlers(*, notifications: Notifications[T], clock: Clock) -> Mapping[type[Message], Handler[T]]:
    """The table: message type -> reaction."""

    async def tell(messages: Sequence[Envelope], *, tx: T) -> None:
        facts = [(fact, message) for message in messages if (fact := fact_of(message.payload))]
        await notify(facts, notifications=notifications, clock=clock, tx=tx)

    async def follow(messages: Sequence[Envelope], *, tx: T) -> None:
        reports = [report_of(message) for message in messages]
        await follow_deliveries(reports, notifications=notifications, clock=clock, tx=tx)

    async def forget(messages: Sequence[Envelope], *, tx: T) -> None:
        erased = [message.aggregate_id for message in messages]
        await forget_customers(erased, notifications=notifications, clock=clock, tx=tx)

    return {
        OrderConfirmed: tell,
        OrderRejected: tell,
        OrderCancelled: tell,
        OrderShipped: tell,
        OrderDelivered: tell,
        OrderRefunded: tell,
        CustomerRegistered: tell,
        CustomerErased: forget,
        EmailVerificationRequested: tell,
        StockRanLow: tell,
        NotificationSending: follow,
        NotificationSent: follow,
        NotificationMuted: follow,
        NotificationFailed: follow,
    }


def fact_of(event: Message) -> Fact | None:
    """What is to be told; None where there is nobody to tell: a guest, or a new customer without an address."""
    match event:
        case CustomerRegistered() if event.has_email:
            return Fact(Kind.WELCOME, event.customer_id, Content(), event.customer_id)
        case EmailVerificationRequested():
            secret = Content(personal_data=event.personal_data, expire_time=event.expire_time.ToDatetime(UTC))
            return Fact(Kind.EMAIL_VERIFICATION, event.customer_id, secret, event.verification_id)
        case StockRanLow():
            low = Content(low_stock=LowStock(event.sku, event.available, event.low_stock))
            return Fact(Kind.LOW_STOCK, MERCHANT, low, f"{event.sku}/{event.version}")
        case OrderConfirmed() if event.customer_id:
            content = Content(
                order_id=event.order_id,
                total=_total(event),
                line_count=len(event.lines),
                lines=_lines(event.lines),
            )
            return Fact(Kind.ORDER_CONFIRMED, event.customer_id, content, event.order_id)
        case OrderRejected() if event.customer_id:
            return Fact(Kind.ORDER_REJECTED, event.customer_id, _failed(event), event.order_id)
        case OrderCancelled() if event.customer_id:
            return Fact(Kind.ORDER_CANCELLED, event.customer_id, _failed(event), event.order_id)
        case OrderShipped() if event.customer_id:
            content = Content(
                order_id=event.order_id,
                line_count=len(event.lines),
                lines=_lines(event.lines),
                carrier=event.carrier,
                tracking_number=event.tracking_number,
            )
            return Fact(Kind.ORDER_SHIPPED, event.customer_id, content, f"{event.order_id}/{event.shipment_id}")
        case OrderDelivered() if event.customer_id:
            content = Content(order_id=event.order_id, line_count=len(event.lines), lines=_lines(event.lines))
            return Fact(Kind.ORDER_DELIVERED, event.customer_id, content, f"{event.order_id}/{event.shipment_id}")
        case OrderRefunded() if event.customer_id:
            content = Content(order_id=event.order_id, total=money(event.refunded), refund=money(event.amount))
            return Fact(Kind.ORDER_REFUNDED, event.customer_id, content, f"{event.order_id}/{event.operation_id}")
        case _:
            return None


def _lines(lines: Sequence[OrderLine]) -> tuple[Line, ...]:
    """The first of them."""
    shown = lines[:LINES_SHOWN]
    return tuple(Line(line.product_name or line.sku, line.quantity, money(line.line_total)) for line in shown)


def _failed(event: OrderRejected | OrderCancelled) -> Content:
    return Content(order_id=event.order_id, total=_total(event), failure=event.failure.message)


def _total(event: OrderConfirmed | OrderRejected | OrderCancelled) -> Money | None:
    return money(event.total) if event.HasField("total") else None


def report_of(message: Envelope) -> tuple[str, Report]:
    """The notification, and what is said of its delivery."""
    event, at = message.payload, message.time
    match event:
        case NotificationSending():
            return event.notification_id, Report(event.attempt, Stage.IN_PROGRESS, start_time=at)
        case NotificationSent():
            sent = Report(event.attempt, Stage.PROCESSED, message_id=event.message_id, end_time=at)
            return event.notification_id, sent
        case NotificationMuted():
            return event.notification_id, Report(event.attempt, Stage.PROCESSED, muted=True, end_time=at)
        case NotificationFailed():
            return event.notification_id, Report(event.attempt, Stage.FAILED, failure=event.reason, end_time=at)
        case _:
            raise TypeError(f"not a report: {message.type}")
