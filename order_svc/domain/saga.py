"""The business transaction of an order, as one table and one pure function over it.

A step is open while the order stands where its row says: that alone decides which command goes out (when the step
opens) and which replies count (those of open steps). Everything else, a duplicate or a late or reordered reply, meets
no open step and changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from chassis.errors import FailedPrecondition
from order_svc.domain import messages as m
from order_svc.domain.fulfilment import Operation, Progress
from order_svc.domain.order import (
    Event,
    Failure,
    FailureReason,
    Holding,
    Order,
    OrderCancelled,
    OrderConfirmed,
    OrderPaymentCaptured,
    OrderPaymentVoided,
    OrderPlaced,
    OrderRefunded,
    OrderRefundFailed,
    OrderRejected,
    OrderRetried,
    OrderSettled,
    OrderStockCommitted,
    OrderStockReleased,
    OrderStockReserved,
    OrderStockRestocked,
    Status,
)
from order_svc.domain.requests import cancel, deliver, ship, take_back

Subject = Order | Operation
Made = Callable[[Any], Event]  # of a reply

RETRY_AFTER = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the saga: `command` is sent when an order comes to one of `statuses` with `part` in `holdings`.

    It concerns the order, or each of its operations that `of` names; these have an `id`, under which they are asked for
    and answered. `completed_by` the reply, `event` is recorded; a reply in `refused_by` records what its function
    makes of it. `undone_by` names the row that takes the step back once the order has failed. While a step that
    `expires` is open, the order's deadline counts; every other is open until it is done. What wasn't answered is
    asked again every RETRY_AFTER.
    """

    name: str
    part: Callable[[Any], Holding | Progress]
    statuses: frozenset[Status]
    holdings: frozenset[Holding | Progress]
    command: Callable[[Any], m.Command]
    completed_by: type[m.Reply]
    event: Made
    refused_by: Mapping[type[m.Reply], Made] = field(default_factory=dict)
    undone_by: str = ""
    expires: bool = False
    of: Callable[[Order], Iterable[Subject]] = lambda order: (order,)
    id: Callable[[Any], str] = lambda _: ""


class Task(NamedTuple):
    """An open step, and what it is to be done for."""

    step: Step
    subject: Subject

    @property
    def operation_id(self) -> str:
        """Empty for the order itself."""
        return self.step.id(self.subject)

    @property
    def key(self) -> tuple[str, str]:
        return self.step.name, self.operation_id

    def command(self) -> m.Command:
        return self.step.command(self.subject)

    def answer(self, reply: m.Message) -> Event | None:
        """What a reply means to this step, None where it isn't its."""
        if getattr(reply, "operation_id", "") != self.operation_id:
            return None
        if isinstance(reply, self.step.completed_by):
            return self.step.event(reply)
        refused = self.step.refused_by.get(type(reply))  # type: ignore[arg-type]
        return refused(reply) if refused else None


def _out_of_stock(reply: m.Reply) -> Event:
    assert isinstance(reply, m.StockRejected)
    named = [f"{s.sku}: {s.wanted} wanted, {s.available} available" for s in reply.shortages[:_SHORTAGES_NAMED]]
    if (more := len(reply.shortages) - len(named)) > 0:
        named.append(f"and {more} more")
    message = "; ".join(named) or "the stock can't be reserved"
    return OrderRejected(Failure(FailureReason.OUT_OF_STOCK, message))


def _declined(reply: m.Reply) -> Event:
    reason = reply.reason if isinstance(reply, m.PaymentDeclined) else "the payment was voided"
    return OrderRejected(Failure(FailureReason.PAYMENT_DECLINED, reason or "the payment was declined"))


def _not_captured(reply: m.Reply) -> Event:
    assert isinstance(reply, m.PaymentCaptureFailed)
    failure = Failure(FailureReason.CAPTURE_FAILED, reply.reason or "the payment can't be captured")
    return OrderCancelled(failure, by="payment_svc")


def _with_money(order: Order) -> tuple[Operation, ...]:
    """Nothing can be refunded before it is captured."""
    return order.operations if order.payment is Holding.TAKEN else ()


def _with_stock(order: Order) -> tuple[Operation, ...]:
    """Nothing can be put back before it is taken."""
    return order.operations if order.stock is Holding.TAKEN else ()


_SHORTAGES_NAMED = 20
_STOCK: Callable[[Order], Holding] = attrgetter("stock")
_PAYMENT: Callable[[Order], Holding] = attrgetter("payment")
_PENDING = frozenset({Status.PENDING})
_CONFIRMED = frozenset({Status.CONFIRMED})
STANDING = frozenset({
    Status.CONFIRMED, Status.PARTLY_SHIPPED, Status.SHIPPED, Status.DELIVERED, Status.RETURNED,
})  # fmt: skip
_FAILED = frozenset({Status.REJECTED, Status.CANCELLED})
_ASKED = frozenset({Holding.ASKED})
_HELD = frozenset({Holding.HELD})
_DUE = frozenset({Progress.DUE})
_ANYTHING = frozenset({Holding.ASKED, Holding.HELD, Holding.TAKEN})

SAGA: tuple[Step, ...] = (
    Step(
        "reserve stock", _STOCK, _PENDING, _ASKED,
        command=lambda order: m.ReserveStock(order.stock_wanted()),
        completed_by=m.StockReserved, event=lambda _: OrderStockReserved(),
        refused_by={m.StockRejected: _out_of_stock},
        undone_by="release stock",
        expires=True,
    ),
    # The pivot: once authorised the order stands, and the steps below are repeated until they are done.
    Step(
        "authorise payment", _PAYMENT, _PENDING, _ASKED,
        command=lambda order: m.AuthorizePayment(order.total, order.payment_token),
        completed_by=m.PaymentAuthorized, event=lambda _: OrderConfirmed(),
        refused_by={m.PaymentDeclined: _declined, m.PaymentVoided: _declined},
        undone_by="void payment",
        expires=True,
    ),
    Step(
        "commit stock", _STOCK, _CONFIRMED, _HELD,
        command=lambda _: m.CommitStock(),
        completed_by=m.StockCommitted, event=lambda _: OrderStockCommitted(),
        undone_by="release stock",
    ),
    Step(
        "capture payment", _PAYMENT, _CONFIRMED, _HELD,
        command=lambda _: m.CapturePayment(),
        completed_by=m.PaymentCaptured, event=lambda _: OrderPaymentCaptured(),
        refused_by={m.PaymentCaptureFailed: _not_captured},
        undone_by="void payment",
    ),
    Step(
        "release stock", _STOCK, _FAILED, _ANYTHING,
        command=lambda _: m.ReleaseStock(),
        completed_by=m.StockReleased, event=lambda _: OrderStockReleased(),
    ),
    Step(
        "void payment", _PAYMENT, _FAILED, _ANYTHING,
        command=lambda _: m.VoidPayment(),
        completed_by=m.PaymentVoided, event=lambda reply: OrderPaymentVoided(reply.refunded),
    ),
    # What was called off or came back, each under its own id.
    Step(
        "restock", attrgetter("restocking"), STANDING, _DUE, of=_with_stock, id=attrgetter("operation_id"),
        command=lambda operation: m.RestockStock(operation.operation_id, dict(operation.restock)),
        completed_by=m.StockRestocked, event=lambda reply: OrderStockRestocked(reply.operation_id),
        undone_by="release stock",
    ),
    Step(
        "refund", attrgetter("refunding"), STANDING, _DUE, of=_with_money, id=attrgetter("refund_id"),
        command=lambda operation: m.RefundPayment(operation.refund_id, operation.refund),
        completed_by=m.PaymentRefunded, event=lambda reply: OrderRefunded(reply.operation_id, reply.amount),
        refused_by={m.PaymentRefundFailed: lambda reply: OrderRefundFailed(reply.operation_id, reply.reason)},
        undone_by="void payment",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What happened to an order and what is asked of others now, both in order; `order` is the order after it."""

    order: Order
    events: tuple[Event, ...] = ()
    commands: tuple[m.Command, ...] = ()


def place(order_id: str, placed: OrderPlaced, now: datetime) -> Decision:
    """Begin the saga of a new order."""
    order = Order.begun(order_id, placed, now)
    return Decision(order, (placed,), tuple(task.command() for task in open_tasks(order)))


def decide(order: Order, message: m.Message, now: datetime) -> Decision:
    """What follows from `message`; nothing, if it doesn't concern the order as it stands.

    Raises FailedPrecondition, InvalidArgument or AlreadyExists for a request that the order can't meet.
    """
    open_before = open_tasks(order)
    event = _reaction(order, message, now, open_before)
    if event is None:
        return Decision(order)
    events = [event]
    after = order.after(event, now)
    tasks = open_tasks(after)
    if not tasks and not after.settled and not needs_operator(after):
        events.append(OrderSettled())
        after = after.after(events[-1], now)
    before = set() if isinstance(event, OrderRetried) else {task.key for task in open_before}
    return Decision(after, tuple(events), tuple(task.command() for task in tasks if task.key not in before))


def ask_again(order: Order) -> Decision:
    """Nothing happened for so long that an answer may have got lost: the commands of all open steps once more.

    Whoever is asked repeats the answer that stands.
    """
    return Decision(order, commands=tuple(task.command() for task in open_tasks(order)))


def open_tasks(order: Order) -> list[Task]:
    """What replies are awaited of."""
    return [
        Task(step, subject)
        for step in SAGA
        if order.status in step.statuses
        for subject in step.of(order)
        if step.part(subject) in step.holdings
    ]


def needs_operator(order: Order) -> list[Operation]:
    """Those of its operations whose refund was refused for good, and the order goes on without."""
    return [o for o in order.operations if order.status in STANDING and o.refunding is Progress.FAILED]


def _reaction(order: Order, message: m.Message, now: datetime, tasks: list[Task]) -> Event | None:
    match message:
        case m.CancelRequested():
            return cancel(order, message)
        case m.ShipmentRequested():
            return ship(order, message)
        case m.DeliveryReported():
            return deliver(order, message)
        case m.ReturnRequested():
            return take_back(order, message)
        case m.RetryRequested():
            if not tasks and not needs_operator(order):
                raise FailedPrecondition(f"order {order.order_id} waits for nothing", reason="ORDER_SETTLED")
            return OrderRetried(message.by, message.reason)
        case m.DeadlinePassed():
            if now >= order.deadline and any(task.step.expires for task in tasks):
                return OrderRejected(
                    Failure(FailureReason.DEADLINE_EXCEEDED, "stock and payment didn't answer in time")
                )
            return None
    for task in tasks:
        if event := task.answer(message):
            return event
    # Money that went back is a fact, whoever asked for it and whatever the order waits for.
    if isinstance(message, m.PaymentRefunded) and message.operation_id not in order.refunds:
        return OrderRefunded(message.operation_id, message.amount)
    return None
