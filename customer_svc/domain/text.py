"""What texts of people may hold."""

import unicodedata
from collections.abc import Iterator

from chassis.errors import Violation

# Control characters, line and paragraph separators, lone surrogates: none belongs in a name, and some break a header.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def text_violations(text: str, field: str, limit: int) -> Iterator[Violation]:
    if len(text) > limit:
        yield Violation(field, f"must have at most {limit} characters")
    if not printable(text):
        yield Violation(field, "must not hold control characters or line breaks")


def printable(text: str) -> bool:
    return not any(unicodedata.category(character) in _UNPRINTABLE for character in text)
