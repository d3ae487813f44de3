"""A payment: what can be asked for it and what is on record. How it moves is in `life.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from chassis.money import Money

_FIRST_DELAY = timedelta(milliseconds=250)
_LONGEST_DELAY = timedelta(seconds=5)


class Status(StrEnum):
    NEW = "NEW"
    AUTHORIZING = "AUTHORIZING"
    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    CAPTURING = "CAPTURING"
    CAPTURED = "CAPTURED"
    CAPTURE_FAILED = "CAPTURE_FAILED"
    VOIDING = "VOIDING"
    VOIDED = "VOIDED"


class Operation(StrEnum):
    """What a provider can be asked. VOID lets go of what is set aside, REFUND gives back what was collected."""

    AUTHORIZE = "AUTHORIZE"
    CAPTURE = "CAPTURE"
    VOID = "VOID"
    REFUND = "REFUND"


class AttemptState(StrEnum):
    """WAITING for another operation; PENDING until the provider's answer is known; UNNEEDED after all."""

    WAITING = "WAITING"
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REFUSED = "REFUSED"
    UNNEEDED = "UNNEEDED"


# An operation of a payment, with the id that tells one refund from another; empty for the rest.
Name = tuple[Operation, str]

AUTHORIZATION: Name = (Operation.AUTHORIZE, "")
CAPTURE: Name = (Operation.CAPTURE, "")
VOID: Name = (Operation.VOID, "")
# What a void comes down to once the amount was captured.
VOIDS_REFUND: Name = (Operation.REFUND, "")


@dataclass(frozen=True, slots=True)
class Approved:
    """The provider did it; `reference` is its name for it."""

    reference: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider will never do it."""

    reason: str


Outcome = Approved | Refused


@dataclass(frozen=True, slots=True)
class Authorize:
    payment_id: str
    amount: Money
    token: str


@dataclass(frozen=True, slots=True)
class Capture:
    payment_id: str


@dataclass(frozen=True, slots=True)
class Void:
    payment_id: str


@dataclass(frozen=True, slots=True)
class Refund:
    """Give back `amount`, once for each `operation_id`."""

    payment_id: str
    operation_id: str
    amount: Money


Command = Authorize | Capture | Void | Refund


@dataclass(frozen=True, slots=True)
class Authorized:
    payment_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class Declined:
    payment_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Captured:
    payment_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class CaptureFailed:
    payment_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Voided:
    """No money is held. `refunded` is what the void gave back of an amount that was captured already."""

    payment_id: str
    refunded: Money | None = None


@dataclass(frozen=True, slots=True)
class Refunded:
    payment_id: str
    operation_id: str
    amount: Money


@dataclass(frozen=True, slots=True)
class RefundFailed:
    payment_id: str
    operation_id: str
    reason: str


Event = Authorized | Declined | Captured | CaptureFailed | Voided | Refunded | RefundFailed


@dataclass(frozen=True, slots=True)
class Attempt:
    """One operation asked of the provider, for the `tries`th time (from 1). `reference` is the authorisation's."""

    payment_id: str
    operation: Operation
    amount: Money
    token: str
    reference: str = ""
    tries: int = 1
    operation_id: str = ""

    @property
    def name(self) -> Name:
        return self.operation, self.operation_id

    @property
    def key(self) -> str:
        """The idempotency key: the same for every try of this operation on this payment."""
        return ":".join(filter(None, (self.payment_id, self.operation, self.operation_id)))

    @property
    def delay(self) -> timedelta:
        """How long to wait before the next try if this one's outcome stays unknown."""
        doublings = min(self.tries - 1, 10)
        return min(_FIRST_DELAY * (1 << doublings), _LONGEST_DELAY)


def parse_key(key: str) -> tuple[str, Name]:
    """The payment and the operation that an idempotency key is of. Raises ValueError."""
    payment_id, _, name = key.partition(":")
    operation, _, operation_id = name.partition(":")
    return payment_id, (Operation(operation), operation_id)


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of an operation. `amount` counts 10^-9 units of the payment's currency."""

    amount: int
    state: AttemptState
    reason: str = ""

    @property
    def open(self) -> bool:
        return self.state in (AttemptState.WAITING, AttemptState.PENDING)


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of one order. `amount` is None where a void came before the authorisation.

    `captured` and `refunded` count 10^-9 units of its currency; `attempts` are in the order they were opened in.
    """

    payment_id: str
    status: Status = Status.NEW
    amount: Money | None = None
    token: str = ""
    failure: str = ""
    reference: str = ""
    captured: int = 0
    refunded: int = 0
    attempts: Mapping[Name, Asked] = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def price(self) -> Money:
        """The amount, where the payment is known to have one: since its authorisation was asked for."""
        assert self.amount is not None, "only a payment that was to be authorised gets here"
        return self.amount

    def money(self, nanos: int) -> Money:
        return Money(self.price.currency, nanos)

    def is_captured(self) -> bool:
        return CAPTURE in self.attempts and self.attempts[CAPTURE].state is AttemptState.APPROVED

    def refunds(self) -> dict[str, Asked]:
        """By operation id; an empty one is that of a void."""
        return {id: asked for (operation, id), asked in self.attempts.items() if operation is Operation.REFUND}
