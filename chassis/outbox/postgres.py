"""The outbox as a table: added to in the caller's transaction, emptied by the relay."""

import json
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from chassis.messaging.envelope import Envelope
from chassis.outbox.port import LEASE, PAGE_BYTES, Backlog, OutboxEntry
from chassis.postgres import Postgres, Transaction

_ADD = """
INSERT INTO outbox (id, aggregate_id, subject, headers, data)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::json[], $5::bytea[])
"""
# Writes nothing while another holds it, so that waiting replicas cost no WAL.
_LEASE = """
UPDATE relay_lease SET holder = $1, expires_at = clock_timestamp() + $2::interval
WHERE name = 'outbox' AND (holder = $1 OR expires_at < clock_timestamp())
"""
_RELEASE = "UPDATE relay_lease SET expires_at = '-infinity' WHERE name = 'outbox' AND holder = $1"
# The oldest, up to the first that goes beyond so many bytes; a large value isn't read to learn its length.
_PENDING = """
SELECT id, aggregate_id, subject, headers, data FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - octet_length(data) AS bytes_before
    FROM outbox WHERE aggregate_id <> ALL ($3::text[]) ORDER BY seq LIMIT $1
) AS page WHERE bytes_before < $2 ORDER BY seq
"""
# A removal lost in a crash only publishes again what consumers have seen: it needn't wait for the disk.
_REMOVE = """
WITH relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
DELETE FROM outbox USING relaxed WHERE id = ANY ($1::uuid[])
"""
_BACKLOG = """
SELECT count(*) AS entries, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
FROM outbox
"""


class PostgresOutbox:
    def __init__(self, db: Postgres):
        self._db = db
        self._nudge: Callable[[], None] = _nobody

    async def add(self, tx: Transaction, envelopes: Sequence[Envelope]) -> None:
        """Store the messages in `tx`, one statement for all, to be published in order once it commits."""
        if not envelopes:
            return
        entries = [OutboxEntry.of(envelope) for envelope in envelopes]
        await tx.execute(
            _ADD,
            [e.id for e in entries],
            [e.aggregate_id for e in entries],
            [e.subject for e in entries],
            [json.dumps(e.headers) for e in entries],
            [e.data for e in entries],
        )
        tx.after_commit(self._added)

    def _added(self) -> None:
        self._nudge()

    def on_added(self, nudge: Callable[[], None]) -> None:
        self._nudge = nudge

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        return await self._db.execute(_LEASE, holder, duration) == "UPDATE 1"

    async def release(self, holder: str) -> None:
        await self._db.execute(_RELEASE, holder)

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        rows = await self._db.fetch(_PENDING, limit, PAGE_BYTES, list(skip))
        return [
            OutboxEntry(str(row["id"]), row["aggregate_id"], row["subject"], json.loads(row["headers"]), row["data"])
            for row in rows
        ]

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        await self._db.execute(_REMOVE, [entry.id for entry in published])

    async def backlog(self) -> Backlog:
        row = await self._db.fetchrow(_BACKLOG)
        assert row is not None
        return Backlog(row["entries"], row["oldest"])


def _nobody() -> None:
    """Nobody relays in this process."""
