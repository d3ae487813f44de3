"""A postal address, and what may be said about one."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chassis.errors import Violation
from customer_svc.domain.text import text_violations

MOST = 20
_MOST_LINES = 5
_LIMITS = {"label": 50, "recipient": 200, "postal_code": 20, "locality": 100, "region": 100}
_LINE = 200
_COUNTRY_CODE = re.compile("[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class Address:
    """`lines` as written on a parcel; `country_code` is ISO 3166-1 alpha-2. Empty where the customer doesn't say."""

    label: str
    lines: tuple[str, ...]
    locality: str
    country_code: str
    recipient: str = ""
    postal_code: str = ""
    region: str = ""


def address_violations(addresses: Sequence[Address], prefix: str) -> Iterator[Violation]:
    """What is wrong with a customer's addresses: everything, not the first, but for fields that are missing."""
    if len(addresses) > MOST:
        yield Violation(prefix, f"must be at most {MOST}")
    labels: set[str] = set()
    for index, address in enumerate(addresses):
        path = f"{prefix}[{index}]."
        for name, limit in _LIMITS.items():
            yield from text_violations(getattr(address, name), path + name, limit)
        if len(address.lines) > _MOST_LINES:
            yield Violation(f"{path}lines", f"must be at most {_MOST_LINES}")
        for number, line in enumerate(address.lines):
            yield from text_violations(line, f"{path}lines[{number}]", _LINE)
        if address.country_code and not _COUNTRY_CODE.fullmatch(address.country_code):
            yield Violation(f"{path}country_code", "must be two capital letters, as of ISO 3166-1")
        if address.label in labels:
            yield Violation(f"{path}label", "stands at another address too")
        labels.add(address.label)
