"""The life of a payment: what each command asks of the provider, and what each of its answers means.

    status          AuthorizePayment     CapturePayment         RefundPayment          VoidPayment
    ──────────────  ───────────────────  ─────────────────────  ─────────────────────  ──────────────────────────────
    none            AUTHORIZING          refused (raises)       refused (raises)       VOIDED
    AUTHORIZING     (answer on its way)  refused (raises)       refused (raises)       VOIDING once that is resolved
    DECLINED        PaymentDeclined      PaymentCaptureFailed   PaymentRefundFailed    PaymentVoided: nothing is held
    AUTHORIZED      PaymentAuthorized    CAPTURING              refused (raises)       VOIDING
    CAPTURING       PaymentAuthorized    (answer on its way)    once that is resolved  VOIDING once that is resolved
    CAPTURED        PaymentAuthorized    PaymentCaptured        asked for in its turn  VOIDING: the rest goes back
    CAPTURE_FAILED  PaymentAuthorized    PaymentCaptureFailed   PaymentRefundFailed    VOIDING
    VOIDING         (answer on its way)  PaymentCaptureFailed   PaymentRefundFailed    (answer on its way)
    VOIDED          PaymentVoided        PaymentCaptureFailed   PaymentRefundFailed    PaymentVoided

Every command is answered, a repeated one with the outcome that stands; a refund that is on record with that, whatever
the status. At most one operation of a payment is asked of the provider at a time, under a key that stays the same
however often; what comes meanwhile waits its turn. All refunds together never exceed what was captured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chassis.errors import FailedPrecondition
from payment_svc.domain.ledger import Entry, entries_of
from payment_svc.domain.payments import (
    AUTHORIZATION,
    CAPTURE,
    VOID,
    VOIDS_REFUND,
    Approved,
    Asked,
    Attempt,
    AttemptState,
    Authorize,
    Authorized,
    Capture,
    Captured,
    CaptureFailed,
    Command,
    Declined,
    Event,
    Name,
    Operation,
    Outcome,
    Payment,
    Refund,
    Refunded,
    RefundFailed,
    Refused,
    Status,
    Void,
    Voided,
)

Step = tuple[Payment, tuple[Event, ...]]


def react(payment: Payment, command: Command) -> Step:
    """What a command makes of a payment, and its answer where that is known already.

    Raises FailedPrecondition for a capture of what isn't authorised yet, a refund of what isn't captured yet, and for
    an authorisation or refund that differs from the one on record.
    """
    match command:
        case Authorize():
            return _authorize(payment, command)
        case Capture():
            return _capture(payment)
        case Refund():
            return _refund(payment, command)
        case Void():
            return _void(payment)


def _authorize(payment: Payment, command: Authorize) -> Step:
    if payment.amount is not None and (payment.amount, payment.token) != (command.amount, command.token):
        message = f"payment {payment.payment_id} is for another amount or means of payment"
        raise FailedPrecondition(message, reason="PAYMENT_DIFFERS")
    match payment.status:
        case Status.NEW:
            asked = replace(payment, status=Status.AUTHORIZING, amount=command.amount, token=command.token)
            return _opened(asked, AUTHORIZATION, command.amount.nanos)
        case Status.AUTHORIZING | Status.VOIDING:
            return payment, ()
        case Status.DECLINED:
            return payment, (Declined(payment.payment_id, payment.failure),)
        case Status.VOIDED:
            return payment, (_voided(payment),)
        case _:
            return payment, (Authorized(payment.payment_id, payment.price),)


def _capture(payment: Payment) -> Step:
    match payment.status:
        case Status.NEW | Status.AUTHORIZING:
            message = f"payment {payment.payment_id} is not authorised"
            raise FailedPrecondition(message, reason="PAYMENT_NOT_AUTHORIZED")
        case Status.AUTHORIZED:
            return _opened(replace(payment, status=Status.CAPTURING), CAPTURE, payment.price.nanos)
        case Status.CAPTURING:
            return payment, ()
        case Status.CAPTURED:
            return payment, (Captured(payment.payment_id, payment.price),)
        case _:
            return payment, (CaptureFailed(payment.payment_id, payment.failure or "the payment was voided"),)


def _refund(payment: Payment, command: Refund) -> Step:
    id, name = command.payment_id, (Operation.REFUND, command.operation_id)
    if known := payment.attempts.get(name):
        if payment.money(known.amount) != command.amount:
            message = f"refund {command.operation_id} of payment {id} is for another amount"
            raise FailedPrecondition(message, reason="PAYMENT_DIFFERS")
        if known.open:
            return payment, ()
        return payment, (_refund_answer(payment, name),)
    match payment.status:
        case Status.NEW | Status.AUTHORIZING | Status.AUTHORIZED:
            raise FailedPrecondition(f"payment {id} is not captured", reason="PAYMENT_NOT_CAPTURED")
        case Status.DECLINED | Status.CAPTURE_FAILED:
            return payment, (RefundFailed(id, command.operation_id, "nothing was captured"),)
        case Status.VOIDING | Status.VOIDED:
            return payment, (RefundFailed(id, command.operation_id, "the payment was voided"),)
        case _:
            pass
    if command.amount.currency != payment.price.currency:
        raise FailedPrecondition(f"payment {id} is in {payment.price.currency}", reason="PAYMENT_DIFFERS")
    claimed = sum(asked.amount for asked in payment.refunds().values() if asked.open)
    left = payment.price.nanos - payment.refunded - claimed
    if command.amount.nanos <= left:
        return _opened(payment, name, command.amount.nanos)
    # On record, so that it stays refused whatever becomes of the others.
    refused = Asked(command.amount.nanos, AttemptState.REFUSED, f"{payment.money(left)} is left to refund")
    payment = _with(payment, name, refused)
    return payment, (_refund_answer(payment, name),)


def _void(payment: Payment) -> Step:
    match payment.status:
        case Status.NEW:
            return replace(payment, status=Status.VOIDED), (Voided(payment.payment_id),)
        case Status.VOIDING:
            return payment, ()
        case Status.DECLINED | Status.VOIDED:
            return payment, (_voided(payment),)
        case _:
            return _opened(replace(payment, status=Status.VOIDING), VOID, payment.price.nanos)


def _opened(payment: Payment, name: Name, amount: int) -> Step:
    return _turn(_with(payment, name, Asked(amount, AttemptState.WAITING)))


def _turn(payment: Payment) -> Step:
    """Ask for the first operation that waits, once none is being asked for."""
    if any(asked.state is AttemptState.PENDING for asked in payment.attempts.values()):
        return payment, ()
    name = next((name for name, asked in payment.attempts.items() if asked.state is AttemptState.WAITING), None)
    if name is None:
        return payment, ()
    if name == VOID and payment.is_captured():
        return _give_back(_moved(payment, VOID, AttemptState.UNNEEDED))
    return _moved(payment, name, AttemptState.PENDING), ()


def _give_back(payment: Payment) -> Step:
    """Refund what is left, for a void that came after the capture."""
    if left := payment.captured - payment.refunded:
        return _with(payment, VOIDS_REFUND, Asked(left, AttemptState.PENDING)), ()
    return replace(payment, status=Status.VOIDED), (_voided(payment),)


def resolve(payment: Payment, name: Name, outcome: Outcome) -> Step:
    """What the provider's answer makes of a payment; one that is known already changes nothing.

    Nor does the refusal of a void or of its refund: money may be held, so it stays to be asked.
    """
    asked = payment.attempts.get(name)
    if asked is None or asked.state is not AttemptState.PENDING or stays_open(name, outcome):
        return payment, ()
    if isinstance(outcome, Refused):
        refused = replace(asked, state=AttemptState.REFUSED, reason=outcome.reason)
        payment, events = _refused(_with(payment, name, refused), name)
    else:
        payment, events = _approved(_moved(payment, name, AttemptState.APPROVED), name, outcome)
    payment, more = _turn(payment)
    return payment, events + more


def stays_open(name: Name, outcome: Outcome) -> bool:
    """Is it the refusal of what must not be refused?"""
    return isinstance(outcome, Refused) and name in (VOID, VOIDS_REFUND)


def _approved(payment: Payment, name: Name, outcome: Approved) -> Step:
    id = payment.payment_id
    match name[0]:
        case Operation.AUTHORIZE:
            payment = replace(payment, reference=outcome.reference)
            return _forward(payment, Status.AUTHORIZED, Authorized(id, payment.price))
        case Operation.CAPTURE:
            payment = replace(payment, captured=payment.price.nanos)
            return _forward(payment, Status.CAPTURED, Captured(id, payment.price))
        case Operation.REFUND:
            payment = replace(payment, refunded=payment.refunded + payment.attempts[name].amount)
            if name != VOIDS_REFUND:
                return payment, (_refund_answer(payment, name),)
    payment = replace(payment, status=Status.VOIDED)
    return payment, (_voided(payment),)


def _refused(payment: Payment, name: Name) -> Step:
    id, reason = payment.payment_id, payment.attempts[name].reason
    if name[0] is Operation.REFUND:
        return payment, (_refund_answer(payment, name),)
    payment = replace(payment, failure=reason)
    if name == AUTHORIZATION:
        if payment.status is not Status.VOIDING:
            return _forward(payment, Status.DECLINED, Declined(id, reason))
        return _moved(replace(payment, status=Status.DECLINED), VOID, AttemptState.UNNEEDED), (Voided(id),)
    payment, answers = _forward(payment, Status.CAPTURE_FAILED, CaptureFailed(id, reason))
    for waiting in [(Operation.REFUND, id) for id, asked in payment.refunds().items() if asked.open]:
        failed = replace(payment.attempts[waiting], state=AttemptState.REFUSED, reason="nothing was captured")
        payment = _with(payment, waiting, failed)
        answers += (_refund_answer(payment, waiting),)
    return payment, answers


def _forward(payment: Payment, status: Status, event: Event) -> Step:
    """On to `status`, unless a void is on its way: who asked for that is told of that alone."""
    if payment.status is Status.VOIDING:
        return payment, ()
    return replace(payment, status=status), (event,)


def _refund_answer(payment: Payment, name: Name) -> Refunded | RefundFailed:
    asked = payment.attempts[name]
    if asked.state is AttemptState.APPROVED:
        return Refunded(payment.payment_id, name[1], payment.money(asked.amount))
    return RefundFailed(payment.payment_id, name[1], asked.reason)


def _voided(payment: Payment) -> Voided:
    back = payment.attempts.get(VOIDS_REFUND)
    return Voided(payment.payment_id, payment.money(back.amount) if back else None)


def _with(payment: Payment, name: Name, asked: Asked) -> Payment:
    return replace(payment, attempts={**payment.attempts, name: asked})


def _moved(payment: Payment, name: Name, state: AttemptState) -> Payment:
    return _with(payment, name, replace(payment.attempts[name], state=state))


Opened = tuple[str, Name]


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction writes: payments as they are now, events, attempts that were opened, and ledger entries.

    Events and attempts come with the index of their command. None: the command whose attempt the event answers.
    """

    payments: Sequence[Payment]
    events: Sequence[tuple[Event, int | None]]
    opened: Mapping[Opened, int]
    entries: Sequence[Entry] = ()


def decide(commands: Sequence[Command], payments: Mapping[str, Payment]) -> Change:
    """React to the commands in turn. `payments` has that of every command. Raises what `react` does."""
    now = dict(payments)
    events: list[tuple[Event, int | None]] = []
    opened: dict[Opened, int] = {}
    for index, command in enumerate(commands):
        before = now[command.payment_id]
        after, answers = react(before, command)
        now[command.payment_id] = after
        opened.update(((after.payment_id, new), index) for new in after.attempts.keys() - before.attempts.keys())
        events += [(event, index) for event in answers]
    return Change(_changed(payments, now), events, opened)


def settle(answers: Sequence[tuple[Attempt, Outcome]], payments: Mapping[str, Payment]) -> Change:
    """Resolve what the provider answered, and book what it did. `payments` has that of every attempt."""
    now = dict(payments)
    events: list[tuple[Event, int | None]] = []
    entries: list[Entry] = []
    for attempt, outcome in answers:
        before = now[attempt.payment_id]
        after, said = resolve(before, attempt.name, outcome)
        now[attempt.payment_id] = after
        events += [(event, None) for event in said]
        if after is not before and isinstance(outcome, Approved):
            entries += entries_of(after, attempt.name)
    return Change(_changed(payments, now), events, {}, entries)


def _changed(before: Mapping[str, Payment], now: Mapping[str, Payment]) -> list[Payment]:
    return [payment for id, payment in now.items() if payment is not before[id]]
