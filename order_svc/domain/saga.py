"""The business transaction of an order, as one table and one pure function over it.

A step is open while the order stands where its row says: that alone decides which command goes out (when the step
opens) and which replies count (those of open steps). Everything else, a duplicate or a late or reordered reply, meets
no open step and changes nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

from chassis.errors import FailedPrecondition
from order_svc.domain import messages as m
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
    OrderRejected,
    OrderSettled,
    OrderStockCommitted,
    OrderStockReleased,
    OrderStockReserved,
    Status,
)

Refusal = Callable[[m.Reply], Event]


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the saga: `command` is sent when an order comes to one of `statuses` with `part` in `holdings`.

    `completed_by` the reply, `event` is recorded; a reply in `refused_by` records what its function makes of it.
    `undone_by` names the row that takes the step back once the order has failed.
    """

    name: str
    part: Callable[[Order], Holding]
    statuses: frozenset[Status]
    holdings: frozenset[Holding]
    command: Callable[[Order], m.Command]
    completed_by: type[m.Reply]
    event: Callable[[], Event]
    refused_by: Mapping[type[m.Reply], Refusal] = field(default_factory=dict)
    undone_by: str = ""

    def open(self, order: Order) -> bool:
        return order.status in self.statuses and self.part(order) in self.holdings


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
    return OrderCancelled(Failure(FailureReason.CAPTURE_FAILED, reply.reason or "the payment can't be captured"))


_SHORTAGES_NAMED = 20
_STOCK: Callable[[Order], Holding] = attrgetter("stock")
_PAYMENT: Callable[[Order], Holding] = attrgetter("payment")
_PENDING = frozenset({Status.PENDING})
_CONFIRMED = frozenset({Status.CONFIRMED})
_FAILED = frozenset({Status.REJECTED, Status.CANCELLED})
_ASKED = frozenset({Holding.ASKED})
_HELD = frozenset({Holding.HELD})
_ANYTHING = frozenset({Holding.ASKED, Holding.HELD, Holding.TAKEN})

SAGA: tuple[Step, ...] = (
    Step(
        "reserve stock", _STOCK, _PENDING, _ASKED,
        command=lambda order: m.ReserveStock(order.stock_wanted()),
        completed_by=m.StockReserved, event=OrderStockReserved,
        refused_by={m.StockRejected: _out_of_stock},
        undone_by="release stock",
    ),
    # The pivot: once authorised the order stands, and the steps below are repeated until they are done.
    Step(
        "authorise payment", _PAYMENT, _PENDING, _ASKED,
        command=lambda order: m.AuthorizePayment(order.total, order.payment_token),
        completed_by=m.PaymentAuthorized, event=OrderConfirmed,
        refused_by={m.PaymentDeclined: _declined, m.PaymentVoided: _declined},
        undone_by="void payment",
    ),
    Step(
        "commit stock", _STOCK, _CONFIRMED, _HELD,
        command=lambda _: m.CommitStock(),
        completed_by=m.StockCommitted, event=OrderStockCommitted,
        undone_by="release stock",
    ),
    Step(
        "capture payment", _PAYMENT, _CONFIRMED, _HELD,
        command=lambda _: m.CapturePayment(),
        completed_by=m.PaymentCaptured, event=OrderPaymentCaptured,
        refused_by={m.PaymentCaptureFailed: _not_captured},
        undone_by="void payment",
    ),
    Step(
        "release stock", _STOCK, _FAILED, _ANYTHING,
        command=lambda _: m.ReleaseStock(),
        completed_by=m.StockReleased, event=OrderStockReleased,
    ),
    Step(
        "void payment", _PAYMENT, _FAILED, _ANYTHING,
        command=lambda _: m.VoidPayment(),
        completed_by=m.PaymentVoided, event=OrderPaymentVoided,
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
    return Decision(order, (placed,), tuple(step.command(order) for step in open_steps(order)))


def decide(order: Order, message: m.Message, now: datetime) -> Decision:
    """What follows from `message`; nothing, if it doesn't concern the order as it stands.

    Raises FailedPrecondition for a cancellation that comes after the pivot.
    """
    event = _reaction(order, message, now)
    if event is None:
        return Decision(order)
    events = [event]
    after = order.after(event, now)
    steps = open_steps(after)
    if not steps:
        events.append(OrderSettled())
        after = after.after(events[-1], now)
    before = open_steps(order)
    return Decision(after, tuple(events), tuple(step.command(after) for step in steps if step not in before))


def ask_again(order: Order) -> Decision:
    """Nothing happened for so long that an answer may have got lost: the commands of all open steps once more.

    Whoever is asked repeats the answer that stands.
    """
    return Decision(order, commands=tuple(step.command(order) for step in open_steps(order)))


def open_steps(order: Order) -> list[Step]:
    """The steps whose replies are awaited."""
    return [step for step in SAGA if step.open(order)]


def _reaction(order: Order, message: m.Message, now: datetime) -> Event | None:
    match message:
        case m.CancelRequested():
            if order.status is Status.CONFIRMED:
                raise FailedPrecondition(
                    f"order {order.order_id} is confirmed already", reason="ORDER_ALREADY_CONFIRMED"
                )
            if order.status is Status.PENDING:
                return OrderCancelled(Failure(FailureReason.CANCELLED_BY_CUSTOMER, "cancelled by the customer"))
            return None
        case m.DeadlinePassed():
            if order.status is Status.PENDING and now >= order.deadline:
                return OrderRejected(
                    Failure(FailureReason.DEADLINE_EXCEEDED, "stock and payment didn't answer in time")
                )
            return None
    for step in open_steps(order):
        if isinstance(message, step.completed_by):
            return step.event()
        if refusal := step.refused_by.get(type(message)):
            return refusal(message)
    return None
