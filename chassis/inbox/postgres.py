"""The inbox as a table beside the effects."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chassis.messaging.topology import INBOX_RETENTION
from chassis.postgres import Postgres, Transaction

# Sorted, so that two batches that share messages lock them in one order.
_RECORD = """
INSERT INTO inbox (consumer, id)
SELECT $1, id FROM unnest($2::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING
RETURNING id
"""
_PRUNE = """
DELETE FROM inbox WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM inbox WHERE received_at < now() - $1::interval LIMIT $2
))
"""
_PRUNE_CHUNK = 5_000


class PostgresInbox:
    """UnitOfWork whose `tx` is a Transaction of `db`."""

    def __init__(self, db: Postgres):
        self._db = db

    @asynccontextmanager
    async def begin(self, consumer: str, ids: Sequence[str]) -> AsyncIterator[tuple[Transaction, set[str]]]:
        async with self._db.transaction() as tx:
            rows = await tx.fetch(_RECORD, consumer, ids)
            yield tx, {str(row["id"]) for row in rows}

    async def prune(self) -> None:
        while await self._db.execute(_PRUNE, INBOX_RETENTION, _PRUNE_CHUNK) == f"DELETE {_PRUNE_CHUNK}":
            pass
