"""A payment provider for development and tests: in this process, but with a database of its own, as a firm has.

What it does is told by the token of the authorisation:

    tok_approved         everything is approved
    tok_declined         the authorisation is refused
    tok_timeout_once     the first try is never heard of, the next approved
    tok_late             charges, but answers only after the caller gave up
    tok_capture_refused  the authorisation is approved, its capture refused for good
    tok_expires          the authorisation is approved, but any capture comes too late
    tok_refund_refused   everything is approved but refunds
    any other            the authorisation is refused: unknown token

`operations` is its record: one row for each key, written before it answers. An authorisation holds for seven days.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg

from chassis.errors import Unavailable
from chassis.ids import NewId, uuid7
from chassis.postgres import Postgres
from payment_svc.domain.payments import Approved, Attempt, Operation, Outcome, Refused

_APPROVING = {
    "tok_approved", "tok_timeout_once", "tok_late", "tok_capture_refused", "tok_expires", "tok_refund_refused",
}  # fmt: skip
_REFUSING = {"tok_declined": "the card was declined"}

_HOLD = timedelta(days=7)

_SCHEMA = """
SELECT pg_advisory_xact_lock(7069113843);
CREATE TABLE IF NOT EXISTS operations (
    key text PRIMARY KEY,
    payment_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('AUTHORIZE', 'CAPTURE', 'VOID', 'REFUND')),
    amount bigint NOT NULL, -- 10^-9 units of the currency
    currency text NOT NULL,
    token text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('APPROVED', 'REFUSED')),
    reason text NOT NULL,
    reference text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz -- of an authorisation that was approved
);
CREATE INDEX IF NOT EXISTS operations_of_payments ON operations (payment_id);
CREATE TABLE IF NOT EXISTS unheard (key text PRIMARY KEY);
"""
_PAYMENTS = "SELECT FROM operations WHERE payment_id = ANY ($1::text[]) AND kind = 'AUTHORIZE' ORDER BY key FOR UPDATE"
_HISTORY = """
SELECT payment_id, kind, token, amount, expires_at <= now() AS expired
FROM operations WHERE payment_id = ANY ($1::text[]) AND outcome = 'APPROVED'
"""
_DO = """
INSERT INTO operations (key, payment_id, kind, amount, currency, token, outcome, reason, reference, expires_at)
SELECT key, payment_id, kind, amount, currency, token, outcome, reason, reference, now() + hold FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::interval[]
) AS v (key, payment_id, kind, amount, currency, token, outcome, reason, reference, hold) ORDER BY key
ON CONFLICT DO NOTHING
RETURNING key
"""
_FIND = "SELECT key, outcome, reason, reference FROM operations WHERE key = ANY ($1::text[])"
_FIRST_TRIES = "INSERT INTO unheard SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING key"


class SandboxProvider:
    """`Provider` over its own database. A caller waits `timeout` seconds for an answer, and no longer."""

    def __init__(self, db: Postgres, *, timeout: float, new_id: NewId = uuid7):
        self._db = db
        self._timeout = timeout
        self._new_id = new_id

    async def create_schema(self) -> None:
        """Make its tables. Safe to repeat, also at the same time."""
        await self._db.execute(_SCHEMA)

    async def submit(self, attempts: Sequence[Attempt]) -> AsyncIterator[Mapping[str, Outcome]]:
        async with self._patience():
            unheard = await self._unheard([a for a in attempts if _is(a, "tok_timeout_once")])
            heard = [a for a in attempts if a.key not in unheard]
            fresh = await self._do(heard)
            late = {a.key for a in heard if _is(a, "tok_late")} & fresh
            answers = await self._record_of([a.key for a in heard if a.key not in late])
        yield answers
        if unheard or late:
            await asyncio.sleep(self._timeout)

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome | None]:
        async with self._patience():
            return {**dict.fromkeys(keys), **await self._record_of(keys)}

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError as error:
            raise Unavailable(f"the provider didn't answer within {self._timeout:g} s") from error
        except asyncpg.PostgresError as error:
            raise Unavailable(f"the provider failed: {error}") from error

    async def _record_of(self, keys: Sequence[str]) -> Mapping[str, Outcome]:
        return {
            row["key"]: Approved(row["reference"]) if row["outcome"] == "APPROVED" else Refused(row["reason"])
            for row in await self._db.fetch(_FIND, list(keys))
        }

    async def _unheard(self, attempts: Sequence[Attempt]) -> set[str]:
        """The keys of those that get lost on the way: the first try of each."""
        if not attempts:
            return set()
        return {row["key"] for row in await self._db.fetch(_FIRST_TRIES, [a.key for a in attempts])}

    async def _do(self, attempts: Sequence[Attempt]) -> set[str]:
        """Decide and record; the first try of a key is what counts. Returns the keys that weren't known before."""
        later = [a.payment_id for a in attempts if a.operation is not Operation.AUTHORIZE]
        done: dict[str, _Done] = {}
        async with self._db.transaction() as tx:
            if later:
                # One at a time for each payment, whatever the keys.
                await tx.execute(_PAYMENTS, later)
                for row in await tx.fetch(_HISTORY, later):
                    done.setdefault(row["payment_id"], _Done()).add(row)
            refusals = [_refusal(a, done.get(a.payment_id, _Done())) for a in attempts]
            rows = await tx.fetch(
                _DO,
                [a.key for a in attempts],
                [a.payment_id for a in attempts],
                [a.operation for a in attempts],
                [a.amount.nanos for a in attempts],
                [a.amount.currency for a in attempts],
                [a.token for a in attempts],
                ["REFUSED" if refusal else "APPROVED" for refusal in refusals],
                refusals,
                ["" if refusal else f"tp_{self._new_id()}" for refusal in refusals],
                [_hold(a) for a in attempts],
            )
        return {row["key"] for row in rows}


@dataclass(slots=True)
class _Done:
    """What was approved for a payment: amounts by kind."""

    amounts: dict[Operation, int] = field(default_factory=dict)
    token: str = ""
    expired: bool = False

    def add(self, row: asyncpg.Record) -> None:
        kind = Operation(row["kind"])
        self.amounts[kind] = self.amounts.get(kind, 0) + row["amount"]
        if kind is Operation.AUTHORIZE:
            self.token, self.expired = row["token"], row["expired"]


def _is(attempt: Attempt, token: str) -> bool:
    return attempt.operation is Operation.AUTHORIZE and attempt.token == token


def _hold(attempt: Attempt) -> timedelta | None:
    if attempt.operation is not Operation.AUTHORIZE:
        return None
    return timedelta() if attempt.token == "tok_expires" else _HOLD


def _refusal(attempt: Attempt, done: _Done) -> str:
    """Why it is refused; empty if it is approved."""
    amounts = done.amounts
    match attempt.operation:
        case Operation.AUTHORIZE:
            return "" if attempt.token in _APPROVING else _REFUSING.get(attempt.token, "unknown token")
        case Operation.CAPTURE:
            if Operation.AUTHORIZE not in amounts or Operation.VOID in amounts:
                return "nothing is authorised"
            if attempt.amount.nanos > amounts[Operation.AUTHORIZE]:
                return "more than was authorised"
            if done.token == "tok_capture_refused":
                return "the card is blocked"
            return "the authorisation expired" if done.expired else ""
        case Operation.VOID:
            # One that expired is let go of all the same: nothing is held then.
            if Operation.AUTHORIZE not in amounts:
                return "nothing is authorised"
            return "the amount was collected" if Operation.CAPTURE in amounts else ""
        case Operation.REFUND:
            if Operation.CAPTURE not in amounts:
                return "nothing was collected"
            if done.token == "tok_refund_refused":
                return "the card's account is closed"
            left = amounts[Operation.CAPTURE] - amounts.get(Operation.REFUND, 0)
            return "more than was collected" if attempt.amount.nanos > left else ""
