"""Whatever is bought, taxed and given back, the parts are whole minor units and sum to what is paid."""

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.config import ConfigError
from chassis.errors import InvalidArgument
from chassis.money import Money, minor_unit
from order_svc.adapters.charges_file import read_charges
from order_svc.domain.fulfilment import Units
from order_svc.domain.order import Line, Order, OrderConfirmed, OrderLinesCancelled, OrderPlaced
from order_svc.domain.pricing import Offer, Wanted, price
from order_svc.domain.refunds import refund_of
from order_svc.domain.totals import MILLION, Charges, Destination, ShippingRule, Totals, share

UNITS = {"JPY": 10**9, "GBP": 10**7, "KWD": 10**6}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOME = Destination("GB", "NIR")
currencies = st.sampled_from(sorted(UNITS))
# Unit prices may be finer than the currency: nails are sold by the thousand.
unit_prices = st.integers(0, 10**13)


@pytest.mark.parametrize(("currency", "unit"), UNITS.items())
def test_a_currency_has_its_minor_unit(currency: str, unit: int) -> None:
    assert minor_unit(currency) == unit
    half = Money(currency, unit + unit // 2)
    assert half.rounded() == Money(currency, 2 * unit)
    assert (half * -1).rounded() == Money(currency, -2 * unit)
    assert Money(currency, unit + unit // 2 - 1).rounded() == Money(currency, unit)


@st.composite
def orders(draw: st.DrawFn) -> tuple[Charges, list[Wanted], dict[str, Offer], Destination]:
    currency = draw(currencies)
    unit = UNITS[currency]
    offers = {
        sku: Offer(sku, "p", 1, sku, Money(currency, draw(unit_prices)), False, draw(st.sampled_from(["", "food"])))
        for sku in ("A", "B", "C")
    }
    wanted = draw(st.lists(st.builds(Wanted, st.sampled_from("ABC"), st.integers(1, 1_000)), min_size=1, max_size=8))
    rates = draw(
        st.dictionaries(
            st.tuples(st.just("GB"), st.sampled_from(["", "NIR"]), st.sampled_from(["", "food", "shipping"])),
            st.integers(0, MILLION),
        )
    )
    flat = Money(currency, draw(st.integers(0, 10**6)) * unit)
    free_from = draw(st.none() | st.integers(0, 10**6).map(lambda n: Money(currency, n * unit)))
    return Charges(rates, {currency: ShippingRule(flat, free_from)}), wanted, offers, HOME


@given(orders())
def test_net_and_tax_and_shipping_are_whole_units_and_sum_to_the_gross(
    order: tuple[Charges, list[Wanted], dict[str, Offer], Destination],
) -> None:
    charges, wanted, offers, destination = order
    lines, net = price(wanted, offers)
    lines, shipping = charges.apply(lines, [offers[x.sku].tax_class for x in lines], destination)
    totals = Totals.of(lines, shipping)
    unit = minor_unit(net.currency)
    assert totals.net == net
    assert totals.gross.nanos == sum(x.total.nanos + (x.tax.nanos if x.tax else 0) for x in lines) + (
        shipping.cost.nanos + shipping.tax.nanos if shipping else 0
    )
    for want, line in zip(wanted, lines, strict=True):
        exact = Fraction(line.unit_price.nanos * want.quantity, unit)
        assert line.total.nanos % unit == 0
        assert abs(Fraction(line.total.nanos, unit) - exact) <= Fraction(1, 2)
        rate = charges.rate(destination, offers[line.sku].tax_class)
        tax = line.tax.nanos if line.tax else 0
        assert tax % unit == 0
        assert abs(Fraction(tax, unit) - Fraction(line.total.nanos * rate, unit * MILLION)) <= Fraction(1, 2)
    rule = charges.shipping[net.currency]
    free = rule.free_from is not None and net.nanos >= rule.free_from.nanos
    assert totals.shipping == (Money(net.currency, 0) if free else rule.flat)


@given(currencies, st.integers(0, 10**9), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_the_parts_of_a_line_sum_to_the_line_whatever_they_are(currency: str, minor: int, parts: list[int]) -> None:
    amount, of = Money(currency, minor * UNITS[currency]), sum(parts)
    given_back, before = Money(currency, 0), 0
    for units in parts:
        part = share(amount, units, of, before)
        assert part.nanos % UNITS[currency] == 0
        assert abs(Fraction(part.nanos, UNITS[currency]) - Fraction(minor * units, of)) <= 1
        assert part.nanos >= 0
        given_back, before = given_back + part, before + units
    assert given_back == amount


def test_the_most_exact_row_of_the_table_counts() -> None:
    rates = {("GB", "", ""): 200_000, ("GB", "", "food"): 0, ("GB", "NIR", ""): 210_000, ("DE", "", ""): 190_000}
    charges = Charges(rates)
    britain, ulster = Destination("GB"), Destination("GB", "NIR")
    assert [charges.rate(britain, ""), charges.rate(britain, "food")] == [200_000, 0]
    assert [charges.rate(ulster, ""), charges.rate(ulster, "food")] == [210_000, 0]
    assert [charges.rate(Destination("DE", "BY"), ""), charges.rate(Destination("FR"), "")] == [190_000, 0]
    assert charges.rate(None, "") == 0


def test_a_shop_with_taxes_asks_where_an_order_goes_unless_it_has_a_place_of_its_own() -> None:
    rates = {("GB", "", ""): 200_000}
    with pytest.raises(InvalidArgument) as raised:
        Charges(rates).destination(None)
    assert [v.field for v in raised.value.violations] == ["destination"]
    assert Charges(rates, home=HOME).destination(None) == HOME
    assert Charges(rates, home=HOME).destination(Destination("DE")) == Destination("DE")
    assert Charges().destination(None) is None


def test_without_charges_an_order_costs_its_lines() -> None:
    line = Line("MUG", 2, Money.parse("GBP", "2.55"), "p", "Mug")
    lines, shipping = Charges().apply([line], [""], None)
    assert (lines, shipping, Totals.of(lines, shipping).gross) == ((line,), None, line.total)


FILE = """
[home]
country = "GB"

[[tax]]
country = "GB"
percent = "20"

[[tax]]
country = "US"
region = "NY"
class = "clothing"
percent = 8.875

[[shipping]]
currency = "JPY"
flat = "500"
free_from = "5000"
"""


def test_charges_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "charges.toml"
    path.write_text(FILE)
    yen = Money("JPY", 500 * 10**9)
    assert read_charges(str(path)) == Charges(
        {("GB", "", ""): 200_000, ("US", "NY", "clothing"): 88_750},
        {"JPY": ShippingRule(yen, yen * 10)},
        Destination("GB"),
    )
    assert read_charges("") == Charges()


def test_a_file_is_told_everything_that_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "charges.toml"
    path.write_text(
        'vat = 1\n[[tax]]\ncountry = "gb"\npercent = "120"\n[[shipping]]\ncurrency = "JPY"\nflat = "0.5"\nfree = 1\n'
    )
    with pytest.raises(ConfigError) as raised:
        read_charges(str(path))
    assert [problem.split(":")[1].strip() for problem in raised.value.problems] == [
        "vat", "tax[0].country", "tax[0].percent", "shipping[0].free", "shipping[0].flat",
    ]  # fmt: skip
    for text in ("[tax]\ncountry = 1", "not toml"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_charges(str(path))
    with pytest.raises(ConfigError):
        read_charges(str(tmp_path / "absent.toml"))


@given(orders(), st.data())
def test_an_order_that_goes_back_in_parts_brings_exactly_what_was_paid(
    order: tuple[Charges, list[Wanted], dict[str, Offer], Destination], data: st.DataObject
) -> None:
    charges, wanted, offers, destination = order
    lines, _ = price(wanted, offers)
    lines, shipping = charges.apply(lines, [offers[x.sku].tax_class for x in lines], destination)
    placed = OrderPlaced("", lines, Totals.of(lines, shipping).gross, "tok", NOW, shipping, destination)
    now = Order.begun("o", placed, NOW).after(OrderConfirmed(), NOW)
    brought = Money(now.total.currency, 0)
    while left := +now.counts().unshipped:
        index = data.draw(st.sampled_from(sorted(left)))
        units = (Units(index, data.draw(st.integers(1, left[index]))),)
        refund = refund_of(now, units)
        assert refund.nanos >= 0
        assert refund.nanos % minor_unit(refund.currency) == 0
        now = now.after(OrderLinesCancelled(str(now.version), units, refund, "", ""), NOW)
        brought += refund
    assert brought == now.total
