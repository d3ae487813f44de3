"""The invoice file as products, stock and orders: figures that were counted by hand in the sample."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ops.invoices import Invoice, InvoiceLine, demand, read
from ops.scenario import UNLOADED, plan

NOW = datetime(2010, 12, 1, tzinfo=UTC)
FILE = Path(__file__).parents[3] / "data" / "invoice_lines.csv.gz"


@pytest.fixture(scope="module")
def invoices() -> list[Invoice]:
    return read(FILE, 200)


def test_the_first_200_invoices_are_180_orders_10_cancellations_and_10_corrections(invoices: list[Invoice]) -> None:
    kinds = Counter("C" if i.cancellation else "correction" if i.correction else "order" for i in invoices)
    assert kinds == {"order": 180, "C": 10, "correction": 10}
    assert sum(len(i.lines) for i in invoices) == 3823


def test_each_code_is_a_product_and_each_price_a_variant(invoices: list[Invoice]) -> None:
    goods = plan(invoices).goods
    assert len(goods) == 1435
    assert sum(len(item.prices) for item in goods.values()) == 2048
    assert sum(len(item.prices) > 1 for item in goods.values()) == 543
    assert {code for code, item in goods.items() if not item.tracked} == {"POST", "C2", "DOT", "M"}


def test_the_total_of_an_order_is_the_sum_of_its_lines(invoices: list[Invoice]) -> None:
    assert invoices[0].total == Decimal("139.12")
    assert sum(order.total for order in plan(invoices).orders) == Decimal("72624.72")


def test_two_of_ten_corrections_find_a_variant(invoices: list[Invoice]) -> None:
    planned = plan(invoices)
    assert planned.adjustments == (("uk-22139@4.25", 56), ("uk-21777@7.95", -10))
    assert len(planned.unmatched) == 8


def test_the_plan_keeps_its_promises_about_stock(invoices: list[Invoice]) -> None:
    planned = plan(invoices)
    wanted = demand(order.invoice for order in planned.orders)
    stock = Counter(planned.stock)
    for sku, units in planned.adjustments:
        stock[sku] += units
    short = {sku for sku, units in wanted.items() if units > stock[sku]}
    for order in planned.orders:
        misses = short & {line.sku for line in order.invoice.lines}
        assert bool(misses) == (order.outcome == "OUT_OF_STOCK")
    outcomes = Counter(order.outcome for order in planned.orders)
    assert outcomes["OUT_OF_STOCK"] > 3
    assert outcomes["PAYMENT_DECLINED"] > 3
    assert all(order.outcome == "CONFIRMED" for order in planned.orders[:UNLOADED])


def test_guests_have_no_customer_id(invoices: list[Invoice]) -> None:
    assert sum(not i.customer_id for i in invoices) == 17


def test_services_and_charges_are_not_stock() -> None:
    line = InvoiceLine("POST", "POSTAGE", 1, Decimal(18), "12583", "France", NOW)
    assert not line.tracked
    assert InvoiceLine("85123A", "", 1, Decimal("2.55"), "", "", NOW).tracked


def test_a_malformed_invoice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,A,x,1,2010-12-01,1.5,,UK\n2,A,x,many,2010-12-01,1.5,,UK\n"
    )
    with pytest.raises(ValueError, match=r"bad\.csv: invoice 2"):
        read(file)
