"""What notification_svc reacts to."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from polymart.customer.v1.events_pb2 import CustomerRegistered
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationSending, NotificationSent
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed, OrderRejected

from chassis.clock import Clock
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.money import Money
from notification_svc.application.commands import follow_deliveries, notify
from notification_svc.application.ports import Notifications
from notification_svc.domain.notification import LINES_SHOWN, Content, Fact, Kind, Line, Report, Stage
from notification_svc.protos import money

T = TypeVar("T")


def handlers(*, notifications: Notifications[T], clock: Clock) -> Mapping[type[Message], Handler[T]]:
    """The table: message type -> reaction."""

    async def notify_customers(messages: Sequence[Envelope], *, tx: T) -> None:
        facts = [(fact, message) for message in messages if (fact := fact_of(message.payload))]
        await notify(facts, notifications=notifications, clock=clock, tx=tx)

    async def follow(messages: Sequence[Envelope], *, tx: T) -> None:
        reports = [report_of(message.payload) for message in messages]
        await follow_deliveries(reports, notifications=notifications, clock=clock, tx=tx)

    return {
        OrderConfirmed: notify_customers,
        OrderRejected: notify_customers,
        OrderCancelled: notify_customers,
        CustomerRegistered: notify_customers,
        NotificationSending: follow,
        NotificationSent: follow,
        NotificationFailed: follow,
    }


def fact_of(event: Message) -> Fact | None:
    """What is to be told; None where there is nobody to tell: a guest, or a new customer without an address."""
    match event:
        case CustomerRegistered() if event.customer.email:
            return Fact(Kind.WELCOME, event.customer.customer_id, Content())
        case OrderConfirmed() if event.customer_id:
            content = Content(
                order_id=event.order_id,
                total=_total(event),
                line_count=len(event.lines),
                lines=tuple(
                    Line(line.product_name or line.sku, line.quantity, money(line.line_total))
                    for line in event.lines[:LINES_SHOWN]
                ),
            )
            return Fact(Kind.ORDER_CONFIRMED, event.customer_id, content)
        case OrderRejected() if event.customer_id:
            return Fact(Kind.ORDER_REJECTED, event.customer_id, _failed(event))
        case OrderCancelled() if event.customer_id:
            return Fact(Kind.ORDER_CANCELLED, event.customer_id, _failed(event))
        case _:
            return None


def _failed(event: OrderRejected | OrderCancelled) -> Content:
    return Content(order_id=event.order_id, total=_total(event), failure=event.failure.message)


def _total(event: OrderConfirmed | OrderRejected | OrderCancelled) -> Money | None:
    return money(event.total) if event.HasField("total") else None


def report_of(event: Message) -> tuple[str, Report]:
    """The notification, and what is said of its delivery."""
    match event:
        case NotificationSending():
            return event.notification_id, Report(event.attempt, Stage.IN_PROGRESS)
        case NotificationSent():
            return event.notification_id, Report(event.attempt, Stage.PROCESSED, message_id=event.message_id)
        case NotificationFailed():
            return event.notification_id, Report(event.attempt, Stage.FAILED, failure=event.reason)
        case _:
            raise TypeError(f"not a report: {event.DESCRIPTOR.full_name}")
