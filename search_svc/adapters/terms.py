"""Amounts, numbers and attributes as keywords: exact on every engine, and in an order that ranges follow."""

import math
import struct
from decimal import Decimal

from search_svc.domain.product import AttributeValue
from search_svc.domain.ranges import step

SEPARATOR = "\x1f"
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
HIGHEST_PRICE = 10**19 - 1


def price_key(currency: str, nanos: int) -> str:
    """An amount as a string that sorts by currency, then amount; exact on every engine, as numbers over 2^53 aren't."""
    return f"{currency}{nanos:019d}"


def price_step(currency: str, nanos: int) -> str:
    """The key of the amount rounded down to two digits."""
    return price_key(currency, int(step(Decimal(nanos))))


def price_of(key: str) -> tuple[str, int]:
    """Currency and nanos of a `price_key`."""
    return key[:-19], int(key[-19:])


def number_key(number: float) -> str:
    """A finite number as 16 hexadecimal digits that sort as numbers do."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))
    return f"{bits ^ (_ALL if bits & _SIGN else _SIGN):016x}"


def number_of(key: str) -> float:
    """The number of a `number_key`."""
    bits = int(key, 16)
    (number,) = struct.unpack(">d", struct.pack(">Q", bits ^ (_SIGN if bits & _SIGN else _ALL)))
    return float(number)


def number_step(number: float) -> str:
    """The key of the number rounded down to two digits."""
    down = float(step(Decimal(repr(number))))
    # Below the lowest number of two digits there is none.
    return number_key(number if math.isinf(down) else down)


def shown_value(value: AttributeValue) -> str:
    """An attribute's value as facets show it: whole numbers without a fraction, flags as true and false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value


def attribute_term(name: str, value: str = "") -> str:
    """An attribute as one term; without a value, what the terms of all its values begin with."""
    return f"{name.replace(SEPARATOR, ' ')}{SEPARATOR}{value}"


def level_term(depth: int, category: str) -> str:
    """A category's path, joined, with how deep it lies before it: "2␟Home > Lamps"."""
    return f"{depth}{SEPARATOR}{category}"
