"""Payments and attempts in PostgreSQL: rows locked in order, a batch written in one statement."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import asyncpg
from google.protobuf.message import Message
from polymart.payment.v1 import events_pb2

from chassis.messaging.envelope import Envelope
from chassis.money import Money
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from chassis.telemetry import current_traceparent
from payment_svc.domain.life import Change
from payment_svc.domain.payments import (
    AUTHORIZATION,
    CAPTURE,
    VOID,
    Asked,
    Attempt,
    AttemptState,
    Authorized,
    Captured,
    CaptureFailed,
    Declined,
    Event,
    Name,
    Operation,
    Payment,
    Refunded,
    RefundFailed,
    Status,
    Voided,
)

SOURCE = "payment_svc"

# A row for each payment before any is locked: of two batches that hear of a payment first, one must wait.
_CREATE = "INSERT INTO payments (payment_id, status) SELECT unnest($1::text[]), 'NEW' ON CONFLICT DO NOTHING"
_PAYMENT = """
SELECT payment_id, status, currency, amount, captured, refunded, token, failure, provider_reference, created_at,
    updated_at
FROM payments
"""
_LOCK = f"{_PAYMENT} WHERE payment_id = ANY ($1::text[]) ORDER BY payment_id FOR UPDATE"
# Its own statement: joined to the one above, it would see the attempts as they were before the wait for locks.
_ATTEMPTS = """
SELECT payment_id, operation, operation_id, amount, state, reason, causation_id, correlation_id, traceparent
FROM attempts WHERE payment_id = ANY ($1::text[]) ORDER BY seq
"""
# The rows are locked and each key comes once, so final values can be written as they are.
_RECORD = """
WITH payment AS (
    UPDATE payments SET status = v.status, currency = v.currency, amount = v.amount, captured = v.captured,
        refunded = v.refunded, token = v.token, failure = v.failure, provider_reference = v.provider_reference,
        updated_at = now()
    FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[]
    ) AS v (payment_id, status, currency, amount, captured, refunded, token, failure, provider_reference)
    WHERE payments.payment_id = v.payment_id
)
INSERT INTO attempts
    (payment_id, operation, operation_id, amount, state, reason, causation_id, correlation_id, traceparent)
SELECT v.payment_id, operation, operation_id, amount, state, reason, causation_id, correlation_id, traceparent
FROM unnest(
    $10::text[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::uuid[], $17::text[],
    $18::text[]
) WITH ORDINALITY AS v
    (payment_id, operation, operation_id, amount, state, reason, causation_id, correlation_id, traceparent, number)
ORDER BY number
ON CONFLICT (payment_id, operation, operation_id)
DO UPDATE SET state = excluded.state, reason = excluded.reason, due_at = now(), updated_at = now()
"""
_BOOK = """
INSERT INTO entries (payment_id, operation, operation_id, account, currency, amount)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
"""
# A claim lost in a crash only means that the same is asked again: it needn't wait for the disk.
_CLAIM = """
WITH relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), due AS (
    SELECT payment_id, operation, operation_id FROM attempts WHERE state = 'PENDING' AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE attempts SET tries = tries + 1, due_at = now() + $2::interval, updated_at = now()
FROM due JOIN payments USING (payment_id) CROSS JOIN relaxed
WHERE attempts.payment_id = due.payment_id AND attempts.operation = due.operation
    AND attempts.operation_id = due.operation_id
RETURNING due.payment_id, due.operation, due.operation_id, currency, attempts.amount, token, provider_reference, tries
"""
# The number of tries tells this claim from a later one.
_DEFER = """
UPDATE attempts SET due_at = now() + v.delay
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::interval[])
    AS v (payment_id, operation, operation_id, tries, delay)
WHERE attempts.payment_id = v.payment_id AND attempts.operation = v.operation
    AND attempts.operation_id = v.operation_id AND attempts.tries = v.tries AND state = 'PENDING'
"""
_REMIND = """
WITH fresh AS (
    INSERT INTO notices (id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id
), forgotten AS (
    DELETE FROM notices WHERE received_at < now() - interval '1 hour'
)
UPDATE attempts SET due_at = now() FROM fresh
WHERE payment_id = $2 AND operation = $3 AND operation_id = $4 AND state = 'PENDING'
"""
_GET = f"{_PAYMENT} WHERE payment_id = $1"
_NEWEST = f"""
{_PAYMENT}
WHERE ($2::text IS NULL OR status = $2)
    AND ($3::timestamptz IS NULL OR (created_at, payment_id) < ($3, $4::text COLLATE "C"))
ORDER BY created_at DESC, payment_id DESC LIMIT $1
"""


@dataclass(frozen=True, slots=True)
class _Cause:
    """What ties an event to the command that led to it."""

    causation_id: str
    correlation_id: str
    traceparent: str | None


class PostgresLedger:
    """`Ledger` in an open transaction.

    `causes` are what the commands came from, by index; `nudge` is called once attempts that the provider must be asked
    are committed.
    """

    def __init__(
        self,
        tx: Transaction,
        outbox: PostgresOutbox,
        nudge: Callable[[], None],
        causes: Sequence[_Cause] = (),
    ):
        self._tx = tx
        self._outbox = outbox
        self._nudge = nudge
        self._causes = causes
        self._stored: dict[tuple[str, Name], _Cause] = {}
        self._before: dict[str, Payment] = {}

    async def payments(self, payment_ids: Collection[str], *, create: bool = False) -> dict[str, Payment]:
        ordered = sorted(payment_ids)
        if create:
            await self._tx.execute(_CREATE, ordered)
        rows = await self._tx.fetch(_LOCK, ordered)
        known = [row["payment_id"] for row in rows if row["status"] != Status.NEW]
        attempts = await self._tx.fetch(_ATTEMPTS, known) if known else []
        for row in attempts:
            cause = _Cause(str(row["causation_id"]), row["correlation_id"], row["traceparent"])
            self._stored[row["payment_id"], _name(row)] = cause
        self._before = {payment.payment_id: payment for payment in _payments(rows, attempts)}
        return dict(self._before)

    async def record(self, change: Change) -> None:
        payments = change.payments
        attempts = [
            (payment.payment_id, name, asked)
            for payment in payments
            for name, asked in payment.attempts.items()
            if asked != self._before[payment.payment_id].attempts.get(name)
        ]
        for key, index in change.opened.items():
            self._stored[key] = self._causes[index]
        causes = [self._cause(payment_id, name) for payment_id, name, _ in attempts]
        if payments:
            await self._tx.execute(
                _RECORD,
                [p.payment_id for p in payments],
                [p.status for p in payments],
                [p.amount.currency if p.amount else None for p in payments],
                [p.amount.nanos if p.amount else None for p in payments],
                [p.captured for p in payments],
                [p.refunded for p in payments],
                [p.token for p in payments],
                [p.failure for p in payments],
                [p.reference for p in payments],
                [payment_id for payment_id, _, _ in attempts],
                [operation for _, (operation, _), _ in attempts],
                [operation_id for _, (_, operation_id), _ in attempts],
                [asked.amount for _, _, asked in attempts],
                [asked.state for _, _, asked in attempts],
                [asked.reason for _, _, asked in attempts],
                [cause.causation_id for cause in causes],
                [cause.correlation_id for cause in causes],
                [cause.traceparent for cause in causes],
            )
        if entries := change.entries:
            await self._tx.execute(
                _BOOK,
                [e.payment_id for e in entries],
                [e.name[0] for e in entries],
                [e.name[1] for e in entries],
                [e.account for e in entries],
                [e.amount.currency for e in entries],
                [e.amount.nanos for e in entries],
            )
        await self._outbox.add(self._tx, [self._envelope(event, index) for event, index in change.events])
        if any(asked.state is AttemptState.PENDING for _, _, asked in attempts):
            self._tx.after_commit(self._nudge)

    def _cause(self, payment_id: str, name: Name) -> _Cause:
        """What led to an attempt: for the refund that a void came down to later, the void's."""
        return self._stored.get((payment_id, name)) or self._stored[payment_id, VOID]

    def _envelope(self, event: Event, index: int | None) -> Envelope:
        cause = self._cause(event.payment_id, _answered(event)) if index is None else self._causes[index]
        envelope = Envelope.new(_message(event), aggregate_id=event.payment_id, source=SOURCE)
        return replace(
            envelope,
            causation_id=cause.causation_id,
            correlation_id=cause.correlation_id,
            traceparent=cause.traceparent,
        )


class PostgresPayments:
    """`Payments` over a database."""

    def __init__(self, db: Postgres, outbox: PostgresOutbox):
        self._db = db
        self._outbox = outbox
        self._nudge: Callable[[], None] = _nobody

    def on_pending(self, nudge: Callable[[], None]) -> None:
        """Call `nudge` when attempts were committed by this process."""
        self._nudge = nudge

    def ledger(self, tx: Transaction, causes: Sequence[Envelope] = ()) -> PostgresLedger:
        """The ledger in a transaction of the caller's."""
        return self._ledger(tx, [_Cause(c.id, c.correlation_id, c.traceparent) for c in causes])

    @asynccontextmanager
    async def transaction(self, *, request_id: str = "") -> AsyncIterator[PostgresLedger]:
        causes = [_Cause(request_id, request_id, current_traceparent())] if request_id else []
        async with self._db.transaction() as tx:
            yield self._ledger(tx, causes)

    def _ledger(self, tx: Transaction, causes: Sequence[_Cause]) -> PostgresLedger:
        return PostgresLedger(tx, self._outbox, self._nudge, causes)

    async def claim(self, limit: int, lease: timedelta) -> list[Attempt]:
        return [
            Attempt(
                row["payment_id"],
                Operation(row["operation"]),
                Money(row["currency"], row["amount"]),
                row["token"],
                row["provider_reference"],
                row["tries"],
                row["operation_id"],
            )
            for row in await self._db.fetch(_CLAIM, limit, lease)
        ]

    async def defer(self, attempts: Sequence[Attempt]) -> None:
        await self._db.execute(
            _DEFER,
            [a.payment_id for a in attempts],
            [a.operation for a in attempts],
            [a.operation_id for a in attempts],
            [a.tries for a in attempts],
            [a.delay for a in attempts],
        )

    async def remind(self, notice_id: str, payment_id: str, name: Name) -> None:
        await self._db.execute(_REMIND, notice_id, payment_id, *name)
        self._nudge()

    async def get(self, payment_id: str) -> Payment | None:
        found = await self._with_attempts(_GET, payment_id)
        return found[0] if found else None

    async def newest(
        self, limit: int, *, status: Status | None = None, before: tuple[datetime, str] | None = None
    ) -> list[Payment]:
        created_at, payment_id = before or (None, None)
        return await self._with_attempts(_NEWEST, limit, status, created_at, payment_id)

    async def _with_attempts(self, query: str, *arguments: object) -> list[Payment]:
        """The payments that `query` finds, as they and their attempts were at one moment."""
        async with self._db.transaction(isolation="repeatable_read", readonly=True) as tx:
            rows = await tx.fetch(query, *arguments)
            known = [row["payment_id"] for row in rows]
            return _payments(rows, await tx.fetch(_ATTEMPTS, known) if known else [])


def _payments(rows: Sequence[asyncpg.Record], attempts: Sequence[asyncpg.Record]) -> list[Payment]:
    asked: dict[str, dict[Name, Asked]] = {}
    for row in attempts:
        known = Asked(row["amount"], AttemptState(row["state"]), row["reason"])
        asked.setdefault(row["payment_id"], {})[_name(row)] = known
    return [_payment(row, asked.get(row["payment_id"], {})) for row in rows]


def _payment(row: asyncpg.Record, attempts: Mapping[Name, Asked]) -> Payment:
    return Payment(
        row["payment_id"],
        Status(row["status"]),
        None if row["amount"] is None else Money(row["currency"], row["amount"]),
        row["token"],
        row["failure"],
        row["provider_reference"],
        row["captured"],
        row["refunded"],
        attempts,
        row["created_at"],
        row["updated_at"],
    )


def _name(row: asyncpg.Record) -> Name:
    return Operation(row["operation"]), row["operation_id"]


def _answered(event: Event) -> Name:
    """The operation whose command an event answers."""
    match event:
        case Authorized() | Declined():
            return AUTHORIZATION
        case Captured() | CaptureFailed():
            return CAPTURE
        case Voided():
            return VOID
        case Refunded(_, operation_id) | RefundFailed(_, operation_id):
            return Operation.REFUND, operation_id


def _message(event: Event) -> Message:
    """The message an event is published as."""
    match event:
        case Authorized(payment_id, amount):
            return events_pb2.PaymentAuthorized(payment_id=payment_id, amount=amount.to_proto())
        case Declined(payment_id, reason):
            return events_pb2.PaymentDeclined(payment_id=payment_id, reason=reason)
        case Captured(payment_id, amount):
            return events_pb2.PaymentCaptured(payment_id=payment_id, amount=amount.to_proto())
        case CaptureFailed(payment_id, reason):
            return events_pb2.PaymentCaptureFailed(payment_id=payment_id, reason=reason)
        case Voided(payment_id, refunded):
            back = refunded.to_proto() if refunded else None
            return events_pb2.PaymentVoided(payment_id=payment_id, refunded=back)
        case Refunded(payment_id, operation_id, amount):
            return events_pb2.PaymentRefunded(
                payment_id=payment_id, operation_id=operation_id, amount=amount.to_proto()
            )
        case RefundFailed(payment_id, operation_id, reason):
            return events_pb2.PaymentRefundFailed(payment_id=payment_id, operation_id=operation_id, reason=reason)


def _nobody() -> None:
    """Nobody asks the provider in this process."""
