"""A notification, what its text is made of, and how far its delivery has come."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import Self

from chassis.ids import derived_id
from chassis.money import Money

LINES_SHOWN = 10


class Kind(Enum):
    """What a notification is about."""

    WELCOME = 1
    ORDER_CONFIRMED = 2
    ORDER_REJECTED = 3
    ORDER_CANCELLED = 4


class Stage(IntEnum):
    """How far a delivery attempt has come; within one attempt it only grows."""

    NEW = 1
    IN_PROGRESS = 2
    FAILED = 3
    PROCESSED = 4


@dataclass(frozen=True, slots=True)
class Line:
    product_name: str
    quantity: int
    line_total: Money


@dataclass(frozen=True, slots=True)
class Content:
    """What the text is made of. `lines` are the first LINES_SHOWN of `line_count`; `failure` is for people."""

    order_id: str = ""
    total: Money | None = None
    line_count: int = 0
    lines: tuple[Line, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something a customer is to be told."""

    kind: Kind
    customer_id: str
    content: Content

    @property
    def subject(self) -> str:
        """The order, or the customer where it isn't about an order: of one kind, there is one fact about it."""
        return self.content.order_id or self.customer_id


@dataclass(frozen=True, slots=True)
class Report:
    """Where the delivery stands: the attempt (0 before the first), its stage, and what came of it."""

    attempt: int = 0
    stage: Stage = Stage.NEW
    failure: str = ""
    message_id: str = ""

    def merged(self, other: Self) -> Self:
        """The one that is further: the later attempt, within one attempt the later stage.

        Associative, commutative and idempotent, so that the order in which reports come doesn't matter.
        """
        return max(self, other, key=lambda report: (report.attempt, report.stage, report.message_id, report.failure))


def latest(reports: Iterable[tuple[str, Report]]) -> dict[str, Report]:
    """The furthest report of each notification."""
    furthest: dict[str, Report] = {}
    for notification_id, report in reports:
        known = furthest.get(notification_id)
        furthest[notification_id] = known.merged(report) if known else report
    return furthest


@dataclass(frozen=True, slots=True)
class Notification:
    notification_id: str
    fact: Fact
    create_time: datetime
    update_time: datetime
    report: Report = field(default_factory=Report)

    @classmethod
    def about(cls, fact: Fact, *, now: datetime) -> Self:
        """A new one. Its id follows from the fact, so that the same fact never makes two."""
        return cls(derived_id("notification", fact.kind.name, fact.subject), fact, create_time=now, update_time=now)
