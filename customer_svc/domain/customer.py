"""A customer and what may be said about one."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from chassis.errors import Violation
from chassis.ids import printable
from customer_svc.domain.address import Address, address_violations
from customer_svc.domain.text import text_violations

CUSTOMER_ID_LIMIT = 128
_TEXT_LIMITS = {"display_name": 200, "email": 254, "country": 100}

# An RFC 5321 address without quoting, comments and address literals: what people have.
_LOCAL = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=.{{1,64}}@){_LOCAL}@{_LABEL}(\.{_LABEL})+")


@dataclass(frozen=True, slots=True)
class Muted:
    """A kind of notification that isn't to come by one channel, both by their names."""

    channel: str
    kind: str


@dataclass(frozen=True, slots=True)
class Details:
    """What a customer says about themselves. Empty where they don't say; without an e-mail nobody writes to them."""

    display_name: str = ""
    email: str = ""
    country: str = ""
    addresses: tuple[Address, ...] = ()
    muted: frozenset[Muted] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Customer:
    """`version` counts the writes, from 1; `etag` changes with every one. Of one that was erased only that is left."""

    customer_id: str
    details: Details
    version: int
    create_time: datetime
    update_time: datetime
    email_verified: bool = False
    erased: bool = False

    @classmethod
    def register(cls, customer_id: str, details: Details, *, now: datetime) -> Self:
        return cls(customer_id, details, version=1, create_time=now, update_time=now)

    @property
    def etag(self) -> str:
        return f"v{self.version}"

    def changed(self, changes: Mapping[str, Any], *, now: datetime) -> Self:
        """With the named details replaced; itself where that changes nothing."""
        details = replace(self.details, **changes)
        if details == self.details:
            return self
        verified = self.email_verified and details.email == self.details.email
        return replace(self._written(now), details=details, email_verified=verified)

    def verified(self, *, now: datetime) -> Self:
        """Known to own their e-mail address; itself where that was known."""
        return self if self.email_verified else replace(self._written(now), email_verified=True)

    def forgotten(self, *, now: datetime) -> Self:
        """Erased; itself where they were."""
        if self.erased:
            return self
        return replace(self._written(now), details=Details(), email_verified=False, erased=True)

    def _written(self, now: datetime) -> Self:
        return replace(self, version=self.version + 1, update_time=now)


def id_violations(customer_id: str, field: str) -> Iterator[Violation]:
    """What is wrong with a customer's id."""
    if not 1 <= len(customer_id) <= CUSTOMER_ID_LIMIT:
        yield Violation(field, f"must have 1 to {CUSTOMER_ID_LIMIT} characters")
    if not printable(customer_id):
        yield Violation(field, "must not hold control characters or line breaks")


def detail_violations(values: Mapping[str, Any], prefix: str) -> Iterator[Violation]:
    """What is wrong with the details given by name: everything, not the first."""
    for name, limit in _TEXT_LIMITS.items():
        if (text := values.get(name)) is None:
            continue
        yield from (faults := list(text_violations(text, prefix + name, limit)))
        if name == "email" and text and not faults and not _EMAIL.fullmatch(text):
            yield Violation(prefix + name, "must be an e-mail address such as ada@example.org (ASCII)")
    yield from address_violations(values.get("addresses", ()), f"{prefix}addresses")
