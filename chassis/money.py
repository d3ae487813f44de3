"""Exact money: an integer number of nanos (10^-9 units) of one currency, as google.type.Money counts; never a float."""

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Self

from google.type.money_pb2 import Money as MoneyMessage

_NANOS = 1_000_000_000
_LIMIT = 9 * 10**18  # fits a PostgreSQL bigint and a BSON int64
# ISO 4217's minor units, where they aren't hundredths.
_ZERO_DIGITS = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split())  # noqa: SIM905
_DIGITS = {"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "CLF": 4, "UYW": 4}
_EXACT = Context(traps=[Inexact, InvalidOperation, Overflow])


def is_currency(code: str) -> bool:
    """Whether it has the form of an ISO 4217 code."""
    return len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()


def minor_unit(currency: str) -> int:
    """The smallest amount that can be paid, in nanos: of JPY one unit, of GBP a hundredth, of KWD a thousandth."""
    digits = 0 if currency in _ZERO_DIGITS else _DIGITS.get(currency, 2)
    return int(10 ** (9 - digits))


def divided(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest whole number, halves away from zero; denominator > 0."""
    quotient = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -quotient if numerator < 0 else quotient


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount. `currency` is an ISO 4217 code, `nanos` the whole amount in 10^-9 units."""

    currency: str
    nanos: int

    @classmethod
    def parse(cls, currency: str, text: str) -> Self:
        """From a decimal string such as "2.55". Raises ValueError if it isn't one or has over nine decimals."""
        shown = repr(text if len(text) <= 40 else f"{text[:40]}…")
        try:
            amount = Decimal(text)
        except InvalidOperation:
            amount = Decimal("NaN")
        # Python's numbers may have underscores and any script's digits.
        if not amount.is_finite() or "_" in text or not text.isascii():
            raise ValueError(f"{shown} is not a decimal number")
        try:
            scaled = _EXACT.scaleb(amount, 9)
        except (Inexact, InvalidOperation, Overflow):
            scaled = Decimal("NaN")
        if scaled != scaled.to_integral_value() or abs(scaled) > _LIMIT:
            raise ValueError(f"{shown} is not an amount of up to nine decimals below nine thousand million")
        return cls(currency, int(scaled))

    @classmethod
    def from_proto(cls, message: MoneyMessage) -> Self:
        """Raises ValueError for amounts google.type.Money doesn't allow (signs that differ, nanos out of range)."""
        units, nanos = message.units, message.nanos
        if abs(nanos) >= _NANOS or (units > 0 > nanos) or (units < 0 < nanos):
            raise ValueError("units and nanos must have the same sign, and nanos be below one unit")
        if not is_currency(message.currency_code):
            raise ValueError("currency_code must be a three-letter ISO 4217 code")
        total = units * _NANOS + nanos
        if abs(total) > _LIMIT:
            raise ValueError("the amount is too large")
        return cls(message.currency_code, total)

    def to_proto(self) -> MoneyMessage:
        sign = -1 if self.nanos < 0 else 1
        units, nanos = divmod(abs(self.nanos), _NANOS)
        return MoneyMessage(currency_code=self.currency, units=sign * units, nanos=sign * nanos)

    @property
    def amount(self) -> Decimal:
        return Decimal(self.nanos).scaleb(-9)

    def __add__(self, other: Self) -> Self:
        if self.currency != other.currency:
            raise ValueError(f"can't add {other.currency} to {self.currency}")
        return type(self)(self.currency, self.nanos + other.nanos)

    def __sub__(self, other: Self) -> Self:
        return self + other * -1

    def __mul__(self, quantity: int) -> Self:
        return type(self)(self.currency, self.nanos * quantity)

    def times(self, numerator: int, denominator: int) -> Self:
        """That fraction of the amount in whole minor units, rounded half away from zero; denominator > 0."""
        unit = minor_unit(self.currency)
        return type(self)(self.currency, divided(self.nanos * numerator, denominator * unit) * unit)

    def rounded(self) -> Self:
        """The nearest amount in whole minor units, halves away from zero."""
        return self.times(1, 1)

    def __str__(self) -> str:
        """At least two decimals, no more than the amount has: "2.55 GBP", "0.065 GBP"."""
        text = f"{self.amount:.9f}".rstrip("0")
        whole, _, fraction = text.partition(".")
        return f"{whole}.{fraction:<02} {self.currency}"
