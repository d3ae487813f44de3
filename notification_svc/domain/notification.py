"""A notification, what its text is made of, and how far its delivery has come."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, IntEnum
from typing import Self

from chassis.errors import FailedPrecondition
from chassis.ids import derived_id
from chassis.money import Money

LINES_SHOWN = 10
MERCHANT = ""


class Kind(Enum):
    """What a notification is about."""

    WELCOME = 1
    ORDER_CONFIRMED = 2
    ORDER_REJECTED = 3
    ORDER_CANCELLED = 4
    EMAIL_VERIFICATION = 5
    LOW_STOCK = 6
    ORDER_SHIPPED = 7
    ORDER_DELIVERED = 8
    ORDER_REFUNDED = 9


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
class LowStock:
    sku: str
    available: int
    threshold: int


@dataclass(frozen=True, slots=True)
class Content:
    """What the text is made of. `lines` are the first LINES_SHOWN of `line_count`; `failure` is for people. A refund's
    `total` is what was given back so far, `refund` what was now.

    `personal_data` is sealed by customer_svc, which alone can open it; after `expire_time` nobody need be told.
    """

    order_id: str = ""
    total: Money | None = None
    line_count: int = 0
    lines: tuple[Line, ...] = ()
    failure: str = ""
    personal_data: bytes = b""
    low_stock: LowStock | None = None
    expire_time: datetime | None = None
    refund: Money | None = None
    carrier: str = ""
    tracking_number: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something a customer, or MERCHANT, is to be told. Of one kind, there is one fact about a `subject`."""

    kind: Kind
    customer_id: str
    content: Content
    subject: str


@dataclass(frozen=True, slots=True)
class Report:
    """Where the delivery stands: the attempt (0 before the first), its stage, when it began and ended, and what came
    of it. `muted`: PROCESSED by sending nothing, since it isn't wanted."""

    attempt: int = 0
    stage: Stage = Stage.NEW
    failure: str = ""
    message_id: str = ""
    muted: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None

    def merged(self, other: Self) -> Self:
        """The one that is further: the later attempt, within one attempt the later stage, with the attempt's start.

        Associative, commutative and idempotent, so that the order in which reports come doesn't matter.
        """
        further = max(self, other, key=Report._rank)
        if self.attempt != other.attempt:
            return further
        starts = [report.start_time for report in (self, other) if report.start_time is not None]
        return replace(further, start_time=min(starts, default=None))

    def _rank(self) -> tuple[int, Stage, str, bool, str, float]:
        end = self.end_time.timestamp() if self.end_time else 0.0
        return self.attempt, self.stage, self.message_id, self.muted, self.failure, -end


def latest(reports: Iterable[tuple[str, Report]]) -> dict[str, Report]:
    """The furthest report of each notification."""
    furthest: dict[str, Report] = {}
    for notification_id, report in reports:
        known = furthest.get(notification_id)
        furthest[notification_id] = known.merged(report) if known else report
    return furthest


@dataclass(frozen=True, slots=True)
class Notification:
    """`number` is its place among all of its customer's, 0 until it is stored."""

    notification_id: str
    fact: Fact
    create_time: datetime
    update_time: datetime
    report: Report = field(default_factory=Report)
    number: int = 0
    read_time: datetime | None = None

    @classmethod
    def about(cls, fact: Fact, *, now: datetime) -> Self:
        """A new one. Its id follows from the fact, so that the same fact never makes two."""
        return cls(derived_id("notification", fact.kind.name, fact.subject), fact, create_time=now, update_time=now)

    def retried(self, *, now: datetime) -> Self:
        """To be delivered after all, in a new attempt. Raises FailedPrecondition unless it FAILED."""
        if self.report.stage is not Stage.FAILED:
            refusal = f"notification {self.notification_id} is {self.report.stage.name}, not FAILED"
            raise FailedPrecondition(refusal, reason="NOTIFICATION_NOT_FAILED")
        report = Report(self.report.attempt + 1, message_id=self.report.message_id)
        return replace(self, report=report, update_time=now)
