"""What requests of orders and carts are checked for alike."""

from collections.abc import Sequence
from typing import Protocol

from polymart.order.v1.order_pb2 import Destination, OrderUnits

from chassis.ids import printable
from chassis.rpc.validation import Validator

MOST_UNITS = 1_000_000
LONGEST_ID = 128
LONGEST_TOKEN = 200
LONGEST_REASON = 500
MOST_LINES = 1_000


class Line(Protocol):
    sku: str
    quantity: int


def check_text(check: Validator, text: str, field: str, longest: int) -> None:
    ok = len(text) <= longest and printable(text)
    check.check(ok, field, f"must be at most {longest} printable characters")


def check_lines(check: Validator, lines: Sequence[Line]) -> None:
    check.check(len(lines) <= MOST_LINES, "lines", f"must be at most {MOST_LINES}")
    for index, line in enumerate(lines):
        check_text(check, line.sku, f"lines[{index}].sku", LONGEST_ID)
        ok = 0 <= line.quantity <= MOST_UNITS
        check.check(ok, f"lines[{index}].quantity", f"must be between 1 and {MOST_UNITS}")


def check_destination(check: Validator, destination: Destination) -> None:
    country, region = destination.country_code, destination.region_code
    check.check(not country or _code(country, 2), "destination.country_code", "must be two letters such as GB")
    fine = not region or (len(region) <= 3 and region.isascii() and region.isalnum() and region == region.upper())
    check.check(fine, "destination.region_code", "must be up to three capital letters and digits such as NIR")


def _code(text: str, length: int) -> bool:
    return len(text) == length and text.isascii() and text.isalpha() and text.isupper()


def check_units(check: Validator, units: Sequence[OrderUnits]) -> None:
    """Units of an order by its lines, each once."""
    check.check(len(units) <= MOST_LINES, "lines", f"must be at most {MOST_LINES}")
    seen: set[int] = set()
    for index, one in enumerate(units):
        check.check(one.line_number > 0, f"lines[{index}].line_number", "is counted from 1")
        check.check(one.line_number not in seen, f"lines[{index}].line_number", "must be given once")
        ok = 0 < one.quantity <= MOST_UNITS
        check.check(ok, f"lines[{index}].quantity", f"must be between 1 and {MOST_UNITS}")
        seen.add(one.line_number)
