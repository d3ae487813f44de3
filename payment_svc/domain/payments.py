"""The life of a payment: what each command asks of the provider, and what each of its answers means.

    status          AuthorizePayment     CapturePayment         VoidPayment
    ──────────────  ───────────────────  ─────────────────────  ──────────────────────────────────
    none            AUTHORIZING          refused (raises)       VOIDED
    AUTHORIZING     (answer on its way)  refused (raises)       VOIDING once that is resolved
    DECLINED        PaymentDeclined      PaymentCaptureFailed   PaymentVoided: nothing is held
    AUTHORIZED      PaymentAuthorized    CAPTURING              VOIDING
    CAPTURING       PaymentAuthorized    (answer on its way)    VOIDING once that is resolved
    CAPTURED        PaymentAuthorized    PaymentCaptured        VOIDING: the money goes back
    CAPTURE_FAILED  PaymentAuthorized    PaymentCaptureFailed   VOIDING
    VOIDING         (answer on its way)  PaymentCaptureFailed   (answer on its way)
    VOIDED          PaymentVoided        PaymentCaptureFailed   PaymentVoided

Every command is answered, a repeated one with the outcome that stands. At most one operation of a payment is asked
of the provider at a time, under a key that stays the same however often: a void waits for what is unresolved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from chassis.errors import FailedPrecondition
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
    """What a provider can be asked. VOID lets go of what is set aside, and gives back what was collected."""

    AUTHORIZE = "AUTHORIZE"
    CAPTURE = "CAPTURE"
    VOID = "VOID"


class AttemptState(StrEnum):
    """WAITING for another operation; PENDING until the provider's answer is known; UNNEEDED after all."""

    WAITING = "WAITING"
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REFUSED = "REFUSED"
    UNNEEDED = "UNNEEDED"


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


Command = Authorize | Capture | Void


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
    payment_id: str


Event = Authorized | Declined | Captured | CaptureFailed | Voided


@dataclass(frozen=True, slots=True)
class Attempt:
    """One operation asked of the provider, for the `tries`th time (from 1). `reference` is the authorisation's."""

    payment_id: str
    operation: Operation
    amount: Money
    token: str
    reference: str = ""
    tries: int = 1

    @property
    def key(self) -> str:
        """The idempotency key: the same for every try of this operation on this payment."""
        return f"{self.payment_id}:{self.operation}"

    @property
    def delay(self) -> timedelta:
        """How long to wait before the next try if this one's outcome stays unknown."""
        doublings = min(self.tries - 1, 10)
        return min(_FIRST_DELAY * (1 << doublings), _LONGEST_DELAY)


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of one order. `amount` is None where a void came before the authorisation."""

    payment_id: str
    status: Status = Status.NEW
    amount: Money | None = None
    token: str = ""
    failure: str = ""
    reference: str = ""
    attempts: Mapping[Operation, AttemptState] = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def _moved(self, status: Status, **attempts: AttemptState) -> "Payment":
        changed = {Operation[name]: state for name, state in attempts.items()}
        return replace(self, status=status, attempts={**self.attempts, **changed})


Step = tuple[Payment, Event | None]


def react(payment: Payment, command: Command) -> Step:
    """What a command makes of a payment, and its answer where that is known already.

    Raises FailedPrecondition for a capture of what isn't authorised yet, and for an authorisation that differs from
    the payment's.
    """
    match command:
        case Authorize():
            return _authorize(payment, command)
        case Capture():
            return _capture(payment)
        case Void():
            return _void(payment)


def _authorize(payment: Payment, command: Authorize) -> Step:
    if payment.amount is not None and (payment.amount, payment.token) != (command.amount, command.token):
        message = f"payment {payment.payment_id} is for another amount or means of payment"
        raise FailedPrecondition(message, reason="PAYMENT_DIFFERS")
    match payment.status:
        case Status.NEW:
            asked = replace(payment, amount=command.amount, token=command.token)
            return asked._moved(Status.AUTHORIZING, AUTHORIZE=AttemptState.PENDING), None
        case Status.AUTHORIZING | Status.VOIDING:
            return payment, None
        case Status.DECLINED:
            return payment, Declined(payment.payment_id, payment.failure)
        case Status.VOIDED:
            return payment, Voided(payment.payment_id)
        case _:
            return payment, Authorized(payment.payment_id, _amount(payment))


def _capture(payment: Payment) -> Step:
    match payment.status:
        case Status.NEW | Status.AUTHORIZING:
            message = f"payment {payment.payment_id} is not authorised"
            raise FailedPrecondition(message, reason="PAYMENT_NOT_AUTHORIZED")
        case Status.AUTHORIZED:
            return payment._moved(Status.CAPTURING, CAPTURE=AttemptState.PENDING), None
        case Status.CAPTURING:
            return payment, None
        case Status.CAPTURED:
            return payment, Captured(payment.payment_id, _amount(payment))
        case _:
            return payment, CaptureFailed(payment.payment_id, payment.failure or "the payment was voided")


def _void(payment: Payment) -> Step:
    match payment.status:
        case Status.NEW:
            return payment._moved(Status.VOIDED), Voided(payment.payment_id)
        case Status.AUTHORIZING | Status.CAPTURING:
            return payment._moved(Status.VOIDING, VOID=AttemptState.WAITING), None
        case Status.AUTHORIZED | Status.CAPTURED | Status.CAPTURE_FAILED:
            return payment._moved(Status.VOIDING, VOID=AttemptState.PENDING), None
        case Status.VOIDING:
            return payment, None
        case Status.DECLINED | Status.VOIDED:
            return payment, Voided(payment.payment_id)


def resolve(payment: Payment, operation: Operation, outcome: Outcome) -> Step:
    """What the provider's answer makes of a payment; one that is known already changes nothing.

    Nor does the refusal of a void: money may be held, so it stays to be asked.
    """
    id, refused = payment.payment_id, isinstance(outcome, Refused)
    if payment.attempts.get(operation) is not AttemptState.PENDING or (operation is Operation.VOID and refused):
        return payment, None
    voiding = payment.status is Status.VOIDING
    event: Event
    answered = {operation.name: AttemptState.REFUSED if refused else AttemptState.APPROVED}
    match operation, outcome:
        case Operation.AUTHORIZE, Approved(reference):
            payment = replace(payment, reference=reference)
            status, event = Status.AUTHORIZED, Authorized(id, _amount(payment))
        case Operation.AUTHORIZE, Refused(reason):
            payment = replace(payment, failure=reason)
            status, event = Status.DECLINED, Declined(id, reason)
            if voiding:
                return payment._moved(status, **answered, VOID=AttemptState.UNNEEDED), Voided(id)
        case Operation.CAPTURE, Approved():
            status, event = Status.CAPTURED, Captured(id, _amount(payment))
        case Operation.CAPTURE, Refused(reason):
            payment = replace(payment, failure=reason)
            status, event = Status.CAPTURE_FAILED, CaptureFailed(id, reason)
        case _:
            return payment._moved(Status.VOIDED, **answered), Voided(id)
    if voiding:
        return payment._moved(Status.VOIDING, **answered, VOID=AttemptState.PENDING), None
    return payment._moved(status, **answered), event


def _amount(payment: Payment) -> Money:
    assert payment.amount is not None, "only a payment that was to be authorised gets here"
    return payment.amount


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction writes: payments as they are now, events, and attempts that were opened.

    Events and attempts come with the index of their command. None: the command whose attempt the event answers.
    """

    payments: Sequence[Payment]
    events: Sequence[tuple[Event, int | None]]
    opened: Mapping[tuple[str, Operation], int]


def decide(commands: Sequence[Command], payments: Mapping[str, Payment]) -> Change:
    """React to the commands in turn. `payments` has that of every command. Raises what `react` does."""
    now = dict(payments)
    events: list[tuple[Event, int | None]] = []
    opened: dict[tuple[str, Operation], int] = {}
    for index, command in enumerate(commands):
        before = now[command.payment_id]
        after, event = react(before, command)
        now[command.payment_id] = after
        opened.update(((after.payment_id, new), index) for new in after.attempts.keys() - before.attempts.keys())
        if event is not None:
            events.append((event, index))
    return Change(_changed(payments, now), events, opened)


def settle(answers: Sequence[tuple[Attempt, Outcome]], payments: Mapping[str, Payment]) -> Change:
    """Resolve what the provider answered. `payments` has that of every attempt."""
    now = dict(payments)
    events: list[tuple[Event, int | None]] = []
    for attempt, outcome in answers:
        now[attempt.payment_id], event = resolve(now[attempt.payment_id], attempt.operation, outcome)
        if event is not None:
            events.append((event, None))
    return Change(_changed(payments, now), events, {})


def _changed(before: Mapping[str, Payment], now: Mapping[str, Payment]) -> list[Payment]:
    return [payment for id, payment in now.items() if payment is not before[id]]
