"""Reacting to commands, asking the provider, and reading payments."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from chassis.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable, Violation
from payment_svc.application.ports import Ledger, Payments, Provider
from payment_svc.domain.life import decide, settle, stays_open
from payment_svc.domain.payments import Attempt, Command, Outcome, Payment, Refund, RefundFailed, Status, parse_key

log = structlog.get_logger(__name__)


async def carry_out(commands: Sequence[Command], *, ledger: Ledger) -> None:
    """React to commands in their order. What the provider must be asked is left as pending attempts.

    Raises FailedPrecondition for a capture of what isn't authorised yet, a refund of what isn't captured yet, and for
    an authorisation or refund that differs from the one on record.
    """
    payments = await ledger.payments({command.payment_id for command in commands}, create=True)
    await ledger.record(decide(commands, payments))


async def ask_provider(limit: int, *, lease: timedelta, payments: Payments, provider: Provider) -> Sequence[Attempt]:
    """Claim due attempts, ask the provider once, and commit its answers as they come in. Returns what was claimed.

    An attempt that was tried before is looked up by its key first, and asked for again only if the provider never heard
    of it. Whatever stays unknown is due again later, under the same key. Dying at any point leaves claims that expire
    after `lease`.
    """
    claimed = await payments.claim(limit, lease)
    unknown = {attempt.key: attempt for attempt in claimed}
    unheard = [attempt for attempt in claimed if attempt.tries == 1]
    try:
        if tried := [attempt.key for attempt in claimed if attempt.tries > 1]:
            found = await provider.find(tried)
            unheard += [unknown[key] for key, outcome in found.items() if outcome is None]
            await _commit({key: outcome for key, outcome in found.items() if outcome}, unknown, payments)
        if unheard:
            async for answers in provider.submit(unheard):
                await _commit(answers, unknown, payments)
    except Unavailable as error:
        log.warning("provider or store out of reach", error=str(error), attempts=len(unknown))
    if unknown:
        log.info("outcome unknown", keys=sorted(unknown)[:10], attempts=len(unknown))
        await payments.defer(list(unknown.values()))
    return claimed


async def _commit(answers: Mapping[str, Outcome], unknown: dict[str, Attempt], payments: Payments) -> None:
    """Commit what `answers` resolve, and take it out of `unknown`."""
    resolved = [(unknown[key], outcome) for key, outcome in answers.items() if key in unknown]
    if not resolved:
        return
    async with payments.transaction() as ledger:
        known = await ledger.payments({attempt.payment_id for attempt, _ in resolved})
        await ledger.record(settle(resolved, known))
    for attempt, outcome in resolved:
        if stays_open(attempt.name, outcome):
            log.error("the provider refused a void", payment_id=attempt.payment_id, outcome=str(outcome))
        else:
            del unknown[attempt.key]


async def hear_of(notice_id: str, key: str, *, payments: Payments) -> None:
    """Ask the provider again soon what became of an operation, since it says that something did."""
    try:
        payment_id, name = parse_key(key)
    except ValueError:
        log.info("notice of an operation that isn't ours", key=key)
        return
    await payments.remind(notice_id, payment_id, name)


async def refund_payment(command: Refund, *, payments: Payments) -> Payment:
    """Begin a refund that an operator asks for, once for each operation id, and return the payment.

    Raises NotFound, InvalidArgument for another currency, FailedPrecondition for more than is left of what was
    captured, and AlreadyExists for an id that was used for another amount.
    """
    async with payments.transaction(request_id=command.operation_id) as ledger:
        payment = (await ledger.payments([command.payment_id])).get(command.payment_id)
        if payment is None:
            raise _not_found(command.payment_id)
        if payment.amount and payment.amount.currency != command.amount.currency:
            raise InvalidArgument([Violation("amount.currency_code", f"must be {payment.amount.currency}")])
        if known := payment.refunds().get(command.operation_id):
            if known.amount != command.amount.nanos:
                raise AlreadyExists(f"refund {command.operation_id} is for another amount", reason="REQUEST_ID_REUSED")
            return payment
        change = decide([command], {payment.payment_id: payment})
        for event, _ in change.events:
            if isinstance(event, RefundFailed):
                raise FailedPrecondition(event.reason, reason="NOT_REFUNDABLE")
        await ledger.record(change)
    return change.payments[0]


async def get_payment(payment_id: str, *, payments: Payments) -> Payment:
    """Raises NotFound if nothing was heard of it."""
    if payment := await payments.get(payment_id):
        return payment
    raise _not_found(payment_id)


async def list_payments(
    limit: int, *, status: Status | None, before: tuple[datetime, str] | None, payments: Payments
) -> tuple[list[Payment], tuple[datetime, str] | None]:
    """A page, newest first, and the place where the next one starts: None on the last."""
    page = await payments.newest(limit + 1, status=status, before=before)
    if len(page) <= limit:
        return page, None
    last = page[limit - 1]
    assert last.created_at is not None
    return page[:limit], (last.created_at, last.payment_id)


def _not_found(payment_id: str) -> NotFound:
    return NotFound(f"there is no payment {payment_id}", reason="PAYMENT_NOT_FOUND")
