"""A customer and what may be said about one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from chassis.errors import Violation
from chassis.ids import printable

CUSTOMER_ID_LIMIT = 128
_LIMITS = {"display_name": 200, "email": 254, "country": 100}

# An RFC 5321 address without quoting, comments and address literals: what people have.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=.{{1,64}}@){_LOCAL}@{_LABEL}(\.{_LABEL})+")


@dataclass(frozen=True, slots=True)
class Details:
    """What a customer says about themselves. Empty where they don't say; without an e-mail nobody writes to them."""

    display_name: str = ""
    email: str = ""
    country: str = ""


DETAIL_FIELDS = tuple(_LIMITS)


@dataclass(frozen=True, slots=True)
class Customer:
    """`version` counts the writes, from 1; `etag` changes with every one."""

    customer_id: str
    details: Details
    version: int
    create_time: datetime
    update_time: datetime

    @classmethod
    def register(cls, customer_id: str, details: Details, *, now: datetime) -> Self:
        return cls(customer_id, details, version=1, create_time=now, update_time=now)

    @property
    def etag(self) -> str:
        return f"v{self.version}"

    def changed(self, changes: Mapping[str, str], *, now: datetime) -> Self:
        """With the named details replaced; itself where that changes nothing."""
        details = replace(self.details, **changes)
        if details == self.details:
            return self
        return replace(self, details=details, version=self.version + 1, update_time=now)


def id_violations(customer_id: str, field: str) -> Iterator[Violation]:
    """What is wrong with a customer's id."""
    if not 1 <= len(customer_id) <= CUSTOMER_ID_LIMIT:
        yield Violation(field, f"must have 1 to {CUSTOMER_ID_LIMIT} characters")
    if not printable(customer_id):
        yield Violation(field, "must not hold control characters or line breaks")


def detail_violations(values: Mapping[str, str], prefix: str) -> Iterator[Violation]:
    """What is wrong with the details given by name: everything, not the first."""
    for name, value in values.items():
        field = prefix + name
        if len(value) > _LIMITS[name]:
            yield Violation(field, f"must have at most {_LIMITS[name]} characters")
        if not printable(value):
            yield Violation(field, "must not hold control characters or line breaks")
        elif name == "email" and value and not _EMAIL.fullmatch(value):
            yield Violation(field, "must be an e-mail address such as ada@example.org (ASCII)")
