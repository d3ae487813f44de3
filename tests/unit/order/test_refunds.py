"""All refunds of an order that goes back whole are its total, whatever the parts and whatever was given back beside."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from chassis.money import Money
from order_svc.domain import messages as m
from order_svc.domain.fulfilment import Units
from order_svc.domain.order import Line, Order, OrderConfirmed, OrderPaymentCaptured, OrderPlaced
from order_svc.domain.saga import decide

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 999)), min_size=1, max_size=3)


def delivered(lines: list[tuple[int, int]], beside: int) -> Order:
    """An order of untracked lines, each (units, price), that cost `beside` more, delivered whole."""
    made = tuple(
        Line(f"S{index}", units, Money("GBP", price), "p", "P", untracked=True)
        for index, (units, price) in enumerate(lines)
    )
    total = Money("GBP", sum(line.total.nanos for line in made) + beside)
    order = Order.begun("o", OrderPlaced("alice", made, total, "tok", NOW), NOW)
    for event in (OrderConfirmed(), OrderPaymentCaptured()):
        order = order.after(event, NOW)
    order = decide(order, m.ShipmentRequested("s", "s", "bob"), NOW).order
    return decide(order, m.DeliveryReported("s", "bob"), NOW).order


@given(LINES, st.integers(0, 500), st.integers(0, 500), st.data())
def test_the_parts_of_an_order_that_comes_back_bring_its_total(
    lines: list[tuple[int, int]], beside: int, gift: int, data: st.DataObject
) -> None:
    order = delivered(lines, beside)
    total = order.total.nanos
    gift = min(gift, total)
    if data.draw(st.booleans()):
        order = decide(order, m.PaymentRefunded("gift", Money("GBP", gift)), NOW).order
    else:
        gift = 0
    units = data.draw(st.permutations([index for index, (count, _) in enumerate(lines) for _ in range(count)]))
    for number, line in enumerate(units):
        back = decide(order, m.ReturnRequested(f"r{number}", "bob", False, (Units(line, 1),)), NOW)
        order = back.order
        for command in back.commands:
            assert isinstance(command, m.RefundPayment)
            assert 0 < command.amount.nanos <= total
            order = decide(order, m.PaymentRefunded(command.operation_id, command.amount), NOW).order
    assert order.status == "RETURNED"
    assert order.settled
    assert order.refunded.nanos == total
    assert sum(o.refund.nanos for o in order.operations) == total - gift
