"""What a person writes about an order, and what a person sees of it."""

import pytest

from ops.orders import _line


@pytest.mark.parametrize(
    ("text", "sku", "quantity"), [("a", "a", 1), ("a=3", "a", 3), ("a=b=3", "a=b", 3), ("a=-1", "a", -1)]
)
def test_a_line_is_a_sku_and_a_quantity(text: str, sku: str, quantity: int) -> None:
    line = _line(text)
    assert (line.sku, line.quantity) == (sku, quantity)


@pytest.mark.parametrize("quantity", ["", "few", "²", "1.5", "--1", "9999999999"])
def test_what_is_no_quantity_is_named(quantity: str) -> None:
    with pytest.raises(ValueError, match="the quantity after = must be a whole number"):
        _line(f"a={quantity}")
