from datetime import UTC, datetime

import pytest

from chassis.errors import FailedPrecondition, InvalidArgument
from chassis.money import Money
from order_svc.adapters.event_codec import event_to_proto
from order_svc.domain.order import Order, OrderConfirmed, OrderPlaced
from order_svc.domain.pricing import MAX_TEXT_BYTES, Offer, Wanted, price, refuse_changes
from order_svc.domain.totals import Charges, Destination


def offer(sku: str, amount: str, currency: str = "GBP") -> Offer:
    return Offer(sku, f"p-{sku}", 1, sku.title(), Money.parse(currency, amount), untracked=False)


OFFERS = {o.sku: o for o in (offer("MUG", "2.55"), offer("NIB", "0.005"), offer("PEN", "1.00", "EUR"))}


def test_lines_are_priced_to_the_minor_unit() -> None:
    lines, total = price([Wanted("MUG", 3), Wanted("NIB", 7), Wanted("MUG", 1)], OFFERS)
    assert [str(line.total) for line in lines] == ["7.65 GBP", "0.04 GBP", "2.55 GBP"]
    assert str(total) == "10.24 GBP"
    assert (lines[0].product_id, lines[0].product_name) == ("p-MUG", "Mug")


def test_every_line_that_cannot_be_sold_is_named() -> None:
    with pytest.raises(InvalidArgument) as raised:
        price([Wanted("GONE", 1), Wanted("MUG", 1), Wanted("PEN", 1), Wanted("LOST", 1)], OFFERS)
    assert [v.field for v in raised.value.violations] == ["lines[0].sku", "lines[2].sku", "lines[3].sku"]
    assert "EUR" in raised.value.violations[1].description


def test_every_line_that_costs_something_else_than_expected_is_named_with_its_price() -> None:
    seen = Money.parse("GBP", "2.50")
    wanted = [Wanted("MUG", 1, seen), Wanted("NIB", 1), Wanted("MUG", 1, OFFERS["MUG"].price), Wanted("MUG", 2, seen)]
    lines, _ = price(wanted, OFFERS)
    with pytest.raises(FailedPrecondition) as raised:
        refuse_changes(wanted, lines)
    assert raised.value.reason == "PRICE_CHANGED"
    assert [(v.field, v.description) for v in raised.value.violations] == [
        ("lines[0]", "2.55 GBP"),
        ("lines[3]", "2.55 GBP"),
    ]


def test_totals_stay_within_what_money_can_hold() -> None:
    dear = {"GEM": offer("GEM", "3999999999")}
    assert price([Wanted("GEM", 1)], dear)[1].nanos == 3_999_999_999 * 10**9
    with pytest.raises(InvalidArgument) as raised:
        price([Wanted("GEM", 2)], dear)
    assert raised.value.violations[0].field == "lines[0].quantity"
    with pytest.raises(InvalidArgument) as raised:
        price([Wanted("GEM", 1), Wanted("GEM", 1)], dear)
    assert raised.value.violations[0].field == "lines"


def test_an_order_too_large_for_a_message_is_refused() -> None:
    long = {"MUG": Offer("MUG", "p", 1, "杯" * 400, Money.parse("GBP", "2.55"), untracked=False)}
    with pytest.raises(InvalidArgument) as raised:
        price([Wanted("MUG", 1)] * 1_000, long)
    assert [v.field for v in raised.value.violations] == ["lines"]


def test_the_largest_order_fits_into_its_messages() -> None:
    name = "x" * (MAX_TEXT_BYTES // 1_000 - len("MUG" + "p"))
    dear = Money("GBP", 3_999_999_999_999)
    lines, total = price([Wanted("MUG", 1_000)] * 1_000, {"MUG": Offer("MUG", "p", 1, name, dear, untracked=True)})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    taxed, _ = Charges({("GB", "", ""): 199_999}).apply(lines, [""] * 1_000, Destination("GB"))
    placed = OrderPlaced("杯" * 128, taxed, total, "杯" * 200, now, None, Destination("GB", "NIR"))
    order = Order.begun("00000000-0000-7000-8000-000000000001", placed, now)
    for event in (placed, OrderConfirmed()):
        assert event_to_proto(event, order, 1).ByteSize() < 2**20 - 64 * 1024
