"""Every state an order can come to, times everything it can be told."""

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chassis.errors import FailedPrecondition
from chassis.money import Money
from order_svc.domain import messages as m
from order_svc.domain.order import FailureReason, Holding, Line, Order, OrderPlaced, Status
from order_svc.domain.saga import SAGA, Decision, decide, open_tasks, place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATE = NOW + timedelta(hours=1)
ORDER_ID = "00000000-0000-7000-8000-000000000001"

MUG = Line("MUG", 2, Money.parse("GBP", "2.55"), "mug", "Mug")
POSTAGE = Line("POST", 1, Money.parse("GBP", "4.00"), "post", "Postage", untracked=True)

MESSAGES: dict[str, m.Message] = {
    "StockReserved": m.StockReserved(),
    "StockRejected": m.StockRejected((m.Shortage("MUG", 2, 1),)),
    "StockCommitted": m.StockCommitted(),
    "StockReleased": m.StockReleased(),
    "PaymentAuthorized": m.PaymentAuthorized(),
    "PaymentDeclined": m.PaymentDeclined("no funds"),
    "PaymentCaptured": m.PaymentCaptured(),
    "PaymentCaptureFailed": m.PaymentCaptureFailed("expired"),
    "PaymentVoided": m.PaymentVoided(),
    "CancelRequested": m.CancelRequested(),
    "DeadlinePassed": m.DeadlinePassed(),
}


def placed(*lines: Line) -> Decision:
    total = Money("GBP", sum(line.total.nanos for line in lines))
    return place(ORDER_ID, OrderPlaced("alice", lines, total, "tok", NOW + timedelta(minutes=30)), NOW)


def state(order: Order) -> str:
    """A name for all that a decision depends on: status/stock/payment, lower case where settled."""
    name = f"{order.status}/{order.stock}/{order.payment}"
    return name.lower() if order.settled else name


# state: {message: what follows}; a message that isn't there changes nothing. Events before the bar, commands after it.
UNDO_STOCK = {"StockReleased": "OrderStockReleased OrderSettled |"}
UNDO_PAYMENT = {"PaymentVoided": "OrderPaymentVoided OrderSettled |"}
UNDO_BOTH = {"StockReleased": "OrderStockReleased |", "PaymentVoided": "OrderPaymentVoided |"}
EXPECTED: dict[str, dict[str, str]] = {
    "PENDING/ASKED/NOTHING": {
        "StockReserved": "OrderStockReserved | AuthorizePayment",
        "StockRejected": "OrderRejected OrderSettled |",
        "CancelRequested": "OrderCancelled | ReleaseStock",
        "DeadlinePassed": "OrderRejected | ReleaseStock",
    },
    "PENDING/HELD/ASKED": {
        "PaymentAuthorized": "OrderConfirmed | CommitStock CapturePayment",
        "PaymentDeclined": "OrderRejected | ReleaseStock",
        "PaymentVoided": "OrderRejected | ReleaseStock",
        "CancelRequested": "OrderCancelled | ReleaseStock VoidPayment",
        "DeadlinePassed": "OrderRejected | ReleaseStock VoidPayment",
    },
    "PENDING/NOTHING/ASKED": {
        "PaymentAuthorized": "OrderConfirmed | CapturePayment",
        "PaymentDeclined": "OrderRejected OrderSettled |",
        "PaymentVoided": "OrderRejected OrderSettled |",
        "CancelRequested": "OrderCancelled | VoidPayment",
        "DeadlinePassed": "OrderRejected | VoidPayment",
    },
    "CONFIRMED/HELD/HELD": {
        "StockCommitted": "OrderStockCommitted |",
        "PaymentCaptured": "OrderPaymentCaptured |",
        "PaymentCaptureFailed": "OrderCancelled | ReleaseStock VoidPayment",
        "CancelRequested": "OrderCancelled | ReleaseStock VoidPayment",
    },
    "CONFIRMED/TAKEN/HELD": {
        "PaymentCaptured": "OrderPaymentCaptured OrderSettled |",
        "PaymentCaptureFailed": "OrderCancelled | ReleaseStock VoidPayment",
        "CancelRequested": "OrderCancelled | ReleaseStock VoidPayment",
    },
    "CONFIRMED/HELD/TAKEN": {
        "StockCommitted": "OrderStockCommitted OrderSettled |",
        "CancelRequested": "OrderCancelled | ReleaseStock VoidPayment",
    },
    "CONFIRMED/NOTHING/HELD": {
        "PaymentCaptured": "OrderPaymentCaptured OrderSettled |",
        "PaymentCaptureFailed": "OrderCancelled | VoidPayment",
        "CancelRequested": "OrderCancelled | VoidPayment",
    },
    "confirmed/taken/taken": {"CancelRequested": "OrderCancelled | ReleaseStock VoidPayment"},
    "confirmed/nothing/taken": {"CancelRequested": "OrderCancelled | VoidPayment"},
    **{
        f"{status}/{state}": reactions
        for status in ("REJECTED", "CANCELLED")
        for state, reactions in {
            "ASKED/NOTHING": UNDO_STOCK,
            "HELD/NOTHING": UNDO_STOCK,
            "HELD/ASKED": UNDO_BOTH,
            "NOTHING/ASKED": UNDO_PAYMENT,
        }.items()
    },
    # Called off once it was confirmed, or a capture that failed, with what had been done by then, and how its undoing
    # goes on.
    "CANCELLED/HELD/HELD": UNDO_BOTH,
    "CANCELLED/TAKEN/HELD": UNDO_BOTH,
    "CANCELLED/HELD/TAKEN": UNDO_BOTH,
    "CANCELLED/TAKEN/TAKEN": UNDO_BOTH,
    "CANCELLED/TAKEN/NOTHING": UNDO_STOCK,
    "CANCELLED/NOTHING/HELD": UNDO_PAYMENT,
    "CANCELLED/NOTHING/TAKEN": UNDO_PAYMENT,
    "rejected/nothing/nothing": {},
    "cancelled/nothing/nothing": {},
}


def reachable() -> dict[str, Order]:
    """Every state there is, found by telling every order everything."""
    found: dict[str, Order] = {}
    frontier = [placed(MUG, POSTAGE).order, placed(POSTAGE).order]
    while frontier:
        order = frontier.pop()
        if state(order) in found:
            continue
        found[state(order)] = order
        for message in MESSAGES.values():
            for now in (NOW, LATE):
                with contextlib.suppress(FailedPrecondition):
                    frontier.append(decide(order, message, now).order)
    return found


REACHABLE = reachable()


def test_every_state_is_in_the_table() -> None:
    assert set(REACHABLE) == set(EXPECTED)


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_cell_of_the_table(name: str, message: str) -> None:
    order = REACHABLE[name]
    expected = EXPECTED[name].get(message, "|")
    if "|" not in expected:
        with pytest.raises(FailedPrecondition) as raised:
            decide(order, MESSAGES[message], LATE)
        assert raised.value.reason == expected
        return
    decision = decide(order, MESSAGES[message], LATE)
    events, commands = expected.split("|")
    assert [type(event).__name__ for event in decision.events] == events.split()
    assert [type(command).__name__ for command in decision.commands] == commands.split()
    assert decision.order.version == order.version + len(decision.events)
    after = order
    for event in decision.events:
        after = after.after(event, LATE)
    assert after == decision.order


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_message_told_twice_changes_nothing_the_second_time(name: str, message: str) -> None:
    try:
        after = decide(REACHABLE[name], MESSAGES[message], LATE).order
    except FailedPrecondition:
        return
    assert decide(after, MESSAGES[message], LATE) == Decision(after)


def test_an_order_waits_for_somebody_exactly_until_it_is_settled() -> None:
    for order in REACHABLE.values():
        assert bool(open_tasks(order)) == (not order.settled)


def test_before_the_deadline_nothing_is_rejected_for_it() -> None:
    for order in REACHABLE.values():
        assert decide(order, m.DeadlinePassed(), order.deadline - timedelta(microseconds=1)) == Decision(order)
    pending = placed(MUG).order
    assert decide(pending, m.DeadlinePassed(), pending.deadline).order.status is Status.REJECTED


def test_a_sku_on_several_lines_is_reserved_once() -> None:
    commands = placed(MUG, POSTAGE, replace(MUG, quantity=3)).commands
    assert commands == (m.ReserveStock({"MUG": 5}),)


def test_an_order_without_tracked_lines_asks_for_its_payment_at_once() -> None:
    decision = placed(POSTAGE)
    assert decision.commands == (m.AuthorizePayment(POSTAGE.total, "tok"),)


def test_an_order_that_costs_nothing_takes_the_same_way() -> None:
    gift = replace(MUG, unit_price=Money("GBP", 0))
    order = placed(gift).order
    assert decide(order, m.StockReserved(), NOW).commands == (m.AuthorizePayment(Money("GBP", 0), "tok"),)


def test_the_failure_says_what_is_short() -> None:
    shortages = tuple(m.Shortage(f"SKU-{n}", 3, n) for n in range(25))
    failure = decide(placed(MUG).order, m.StockRejected(shortages), NOW).order.failure
    assert failure is not None
    assert failure.reason is FailureReason.OUT_OF_STOCK
    assert failure.message.startswith("SKU-0: 3 wanted, 0 available; SKU-1: 3 wanted, 1 available; ")
    assert failure.message.endswith("; and 5 more")


def test_what_undoes_a_step_is_a_step() -> None:
    undoing = {step.name: step for step in SAGA if not step.undone_by}
    for step in SAGA:
        if step.undone_by:
            assert undoing[step.undone_by].command(REACHABLE["CONFIRMED/HELD/HELD"]) in (
                m.ReleaseStock(),
                m.VoidPayment(),
            )
            assert not undoing[step.undone_by].statuses & step.statuses
            # Whatever the step left behind, its undoing finds it.
            assert {Holding.ASKED, Holding.HELD, Holding.TAKEN} <= undoing[step.undone_by].holdings
