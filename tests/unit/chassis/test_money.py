"""Amounts are exact, or refused."""

from decimal import Decimal

import pytest
from google.type.money_pb2 import Money as MoneyMessage
from hypothesis import given
from hypothesis import strategies as st

from chassis.money import Money


@given(st.decimals(min_value=-9_000_000_000, max_value=9_000_000_000, places=9))
def test_what_a_text_says_is_what_is_kept(amount: Decimal) -> None:
    money = Money.parse("GBP", str(amount))
    assert money.amount == amount
    assert Money.from_proto(money.to_proto()) == money


@pytest.mark.parametrize("text", ["", "dear", "nan", "sNaN", "Infinity", "1_000", "１.５", "1,50", "1e" + "9" * 30])
def test_what_is_no_decimal_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal number"):
        Money.parse("GBP", text)


@pytest.mark.parametrize("text", ["0.0000000001", f"1.{'0' * 40}1", "9000000000.000000001", "1e999999", "1e-999999"])
def test_what_cannot_be_kept_exactly_is_refused_and_not_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of up to nine decimals"):
        Money.parse("GBP", text)


@pytest.mark.parametrize("code", ["", "A1B", "ÄÖÜ", "eur", "EU", "EURO", "ＥＵＲ", "12A"])
def test_what_has_not_the_form_of_a_currency_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="currency_code must be a three-letter ISO 4217 code"):
        Money.from_proto(MoneyMessage(currency_code=code, units=1))
