"""A payment provider for development and tests: in this process, but with a database of its own, as a firm has.

What it does is told by the token of the authorisation:

    tok_approved         everything is approved
    tok_declined         the authorisation is refused
    tok_timeout_once     the first try is never heard of, the next approved
    tok_late             charges, but answers only after the caller gave up
    tok_capture_refused  the authorisation is approved, its capture refused for good
    any other            the authorisation is refused: unknown token

`operations` is its record: one row for each key, written before it answers.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import asyncpg

from chassis.errors import Unavailable
from chassis.ids import NewId, uuid7
from chassis.postgres import Postgres
from payment_svc.domain.payments import Approved, Attempt, Operation, Outcome, Refused

_APPROVING = {"tok_approved", "tok_timeout_once", "tok_late", "tok_capture_refused"}
_REFUSING = {"tok_declined": "the card was declined"}

_SCHEMA = """
SELECT pg_advisory_xact_lock(7069113843);
CREATE TABLE IF NOT EXISTS operations (
    key text PRIMARY KEY,
    payment_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('AUTHORIZE', 'CAPTURE', 'VOID')),
    amount bigint NOT NULL, -- 10^-9 units of the currency
    currency text NOT NULL,
    token text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('APPROVED', 'REFUSED')),
    reason text NOT NULL,
    reference text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS operations_of_payments ON operations (payment_id);
CREATE TABLE IF NOT EXISTS unheard (key text PRIMARY KEY);
"""
_HISTORY = "SELECT payment_id, kind, token FROM operations WHERE payment_id = ANY ($1::text[]) AND outcome = 'APPROVED'"
_DO = """
INSERT INTO operations (key, payment_id, kind, amount, currency, token, outcome, reason, reference)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]
) AS v (key) ORDER BY key
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

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome]:
        async with self._patience():
            return await self._record_of(keys)

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
        approved: dict[str, dict[Operation, str]] = {}
        for row in await self._db.fetch(_HISTORY, later) if later else ():
            approved.setdefault(row["payment_id"], {})[Operation(row["kind"])] = row["token"]
        outcomes = [_decide(a, approved.get(a.payment_id, {})) for a in attempts]
        rows = await self._db.fetch(
            _DO,
            [a.key for a in attempts],
            [a.payment_id for a in attempts],
            [a.operation for a in attempts],
            [a.amount.nanos for a in attempts],
            [a.amount.currency for a in attempts],
            [a.token for a in attempts],
            ["REFUSED" if refusal else "APPROVED" for refusal in outcomes],
            outcomes,
            ["" if refusal else f"tp_{self._new_id()}" for refusal in outcomes],
        )
        return {row["key"] for row in rows}


def _is(attempt: Attempt, token: str) -> bool:
    return attempt.operation is Operation.AUTHORIZE and attempt.token == token


def _decide(attempt: Attempt, approved: Mapping[Operation, str]) -> str:
    """Why it is refused; empty if it is approved. `approved` are the tokens of what was done for this payment."""
    match attempt.operation:
        case Operation.AUTHORIZE:
            return "" if attempt.token in _APPROVING else _REFUSING.get(attempt.token, "unknown token")
        case Operation.CAPTURE:
            if Operation.AUTHORIZE not in approved or Operation.VOID in approved:
                return "nothing is authorised"
            return "the authorisation expired" if approved[Operation.AUTHORIZE] == "tok_capture_refused" else ""
        case Operation.VOID:
            return "" if Operation.AUTHORIZE in approved else "nothing is authorised"
