"""What texts of people may hold."""

from collections.abc import Iterator

from chassis.errors import Violation
from chassis.ids import printable


def text_violations(text: str, field: str, limit: int) -> Iterator[Violation]:
    if len(text) > limit:
        yield Violation(field, f"must have at most {limit} characters")
    if not printable(text):
        yield Violation(field, "must not hold control characters or line breaks")
