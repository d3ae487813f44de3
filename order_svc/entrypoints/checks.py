"""What requests of this service have in common: texts, ids and units checked and read."""

from collections.abc import Sequence
from uuid import UUID

from polymart.order.v1 import order_pb2

from chassis.ids import printable
from chassis.rpc.validation import Validator

MOST_LINES = 1_000
MOST_UNITS = 1_000_000
LONGEST_ID = 128
LONGEST_REASON = 500


def canonical(uuid: str) -> str:
    return str(UUID(uuid))


def check_text(check: Validator, text: str, field: str, longest: int) -> None:
    ok = len(text) <= longest and printable(text)
    check.check(ok, field, f"must be at most {longest} printable characters")


def check_units(check: Validator, units: Sequence[order_pb2.OrderUnits]) -> None:
    """Units of an order by its lines, each once."""
    check.check(len(units) <= MOST_LINES, "lines", f"must be at most {MOST_LINES}")
    seen: set[int] = set()
    for index, one in enumerate(units):
        check.check(one.line_number > 0, f"lines[{index}].line_number", "is counted from 1")
        check.check(one.line_number not in seen, f"lines[{index}].line_number", "must be given once")
        ok = 0 < one.quantity <= MOST_UNITS
        check.check(ok, f"lines[{index}].quantity", f"must be between 1 and {MOST_UNITS}")
        seen.add(one.line_number)
