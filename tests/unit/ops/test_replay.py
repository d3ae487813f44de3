"""What becomes of each line of an invoice file, before any of it is played."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ops.invoices import Goods, Invoice, InvoiceLine, products, sku, stream
from ops.replay import skipped, survey

NOW = datetime(2010, 12, 1, tzinfo=UTC)
FILE = Path(__file__).parents[3] / "data" / "invoice_lines.csv.gz"


def line(quantity: int = 1, price: str | None = "2.55", customer: str = "17850") -> InvoiceLine:
    return InvoiceLine("85123A", "HEART", quantity, Decimal(price) if price else None, customer, "United Kingdom", NOW)


@pytest.mark.parametrize(
    ("number", "line", "why"),
    [
        ("536365", line(), ""),
        ("536365", line(price=None), "stock correction"),
        ("536365", line(-3), "units below one"),
        ("A563186", line(price="-11062.06"), "written off"),
        ("C536379", line(-1), ""),
        ("C536379", line(1), "takes nothing back"),
        ("C536379", line(-1, price=None), "without a price"),
        ("C536379", line(-1, customer=""), "nobody known"),
    ],
)
def test_a_line_that_is_not_played_has_a_reason(number: str, line: InvoiceLine, why: str) -> None:
    reason = skipped(Invoice(number, (line,)), line)
    assert why in reason
    assert bool(why) == bool(reason)


def test_what_is_free_beside_what_is_not_is_ordered() -> None:
    gift, mug = line(price=None), line()
    invoice = Invoice("536365", (gift, mug))
    assert [skipped(invoice, each) for each in invoice.lines] == ["", ""]


def test_the_survey_has_every_sku_that_is_ordered_and_what_is_credited() -> None:
    found = survey(stream(FILE))
    variants = {variant.sku for product in products(found.goods.values()) for variant in product.variants}
    ordered = Counter[str]()
    for invoice in stream(FILE):
        for each in invoice.lines:
            if not skipped(invoice, each) and not invoice.cancellation:
                assert each.sku in variants
                ordered[each.sku] += each.quantity if each.tracked else 0
    assert +ordered == found.demand
    assert all(customer for customer, _ in found.credited)


def test_a_code_of_many_prices_is_several_products_that_share_no_sku() -> None:
    goods = Goods("M")
    goods.prices.update(Decimal(n) / 100 for n in range(1, 451))
    made = list(products([goods]))
    assert [product.product_id for product in made] == ["uk-M", "uk-M-2", "uk-M-3"]
    assert [len(product.variants) for product in made] == [200, 200, 50]
    assert len({variant.sku for product in made for variant in product.variants}) == 450


def test_prices_finer_than_a_penny_have_skus_of_their_own() -> None:
    assert [sku("A", Decimal(text)) for text in ("2.5", "0.001", "0", "3")] == [
        "uk-A@2.50",
        "uk-A@0.001",
        "uk-A@0.00",
        "uk-A@3.00",
    ]
