"""The read side built anew out of the events, beside the old one, while orders come in; then put in its place."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby

import asyncpg

from chassis.errors import Aborted, FailedPrecondition
from chassis.postgres import Postgres, Transaction
from order_svc.adapters.read_model import NAMES, order_row, recorded
from order_svc.application.ports import Rebuilt
from order_svc.domain.order import Order

_TABLES = ("orders", "shipments")
_NEXT = "next_"
_PAGE = 500
_FEW = 1_000  # events left to read while writers wait
_ROUNDS = 100
_DIFFERENCES_NAMED = 100
_NIL = "00000000-0000-0000-0000-000000000000"

_GUARD = "SELECT pg_try_advisory_xact_lock(hashtext('order_svc read model'))"
_OPTIONS = "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = $1::text::regclass"
_INDEXES = """
SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition, i.indisprimary AS primary
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = $1::text::regclass ORDER BY c.relname
"""

# What is below the oldest transaction that is open can't grow any more.
_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_IDS = "SELECT stream_id FROM events WHERE version = 1 AND stream_id > $1 ORDER BY stream_id LIMIT $2"
_SINCE = """
SELECT DISTINCT stream_id FROM events WHERE transaction_id >= $1::text::xid8
    AND ($2::text IS NULL OR transaction_id < $2::text::xid8)
"""
_STREAMS = """
SELECT stream_id, version, type, schema_version, data, occurred_at FROM events
WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version
"""
_ORDERS = f"""
INSERT INTO next_orders ({", ".join(NAMES)})
VALUES ({", ".join(f"${n}" for n in range(1, len(NAMES) + 1))})
ON CONFLICT (order_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in NAMES[1:])}
"""  # noqa: S608
_SHIPMENTS = """
INSERT INTO next_shipments (shipment_id, order_id, ship_time, deliver_time) VALUES ($1, $2, $3, $4)
ON CONFLICT (shipment_id) DO UPDATE SET deliver_time = excluded.deliver_time
"""

# A row of the old that is ahead has moved since it was read from the events; what is missing in the new and has events
# was placed since.
_ORDERS_DIFFER = f"""
SELECT coalesce(old.order_id, new.order_id) AS id, CASE
    WHEN old.order_id IS NULL THEN 'is missing' WHEN new.order_id IS NULL THEN 'has no events'
    ELSE 'differs in ' || concat_ws(', ', {
    ", ".join(f"CASE WHEN old.{name} IS DISTINCT FROM new.{name} THEN '{name}' END" for name in NAMES[1:])
}) END AS how
FROM orders old FULL JOIN next_orders new USING (order_id)
WHERE old.order_id IS NULL
    OR new.order_id IS NULL AND NOT EXISTS (SELECT FROM events WHERE stream_id = old.order_id AND version = 1)
    OR old.version <= new.version
        AND ({", ".join(f"old.{name}" for name in NAMES)}) IS DISTINCT FROM ({
    ", ".join(f"new.{name}" for name in NAMES)
})
ORDER BY 1
"""  # noqa: S608
_SHIPMENTS_DIFFER = """
SELECT coalesce(old.shipment_id, new.shipment_id) AS id, CASE
    WHEN old.shipment_id IS NULL THEN 'is missing' WHEN new.shipment_id IS NULL THEN 'has no event'
    ELSE 'differs' END AS how
FROM shipments old FULL JOIN next_shipments new USING (shipment_id) LEFT JOIN next_orders o ON o.order_id = old.order_id
LEFT JOIN orders at ON at.order_id = old.order_id
WHERE old.shipment_id IS NULL
    OR at.version IS NOT DISTINCT FROM o.version AND (new.shipment_id IS NULL
        OR (old.order_id, old.ship_time, old.deliver_time) IS DISTINCT FROM (new.order_id, new.ship_time, new.deliver_time))
ORDER BY 1
"""  # noqa: E501
_KEEP = """
UPDATE next_orders new SET asked_again_at = old.asked_again_at FROM orders old
WHERE old.order_id = new.order_id AND old.asked_again_at IS NOT NULL
"""


class PostgresReadModel:
    """The port ReadModel."""

    def __init__(self, db: Postgres):
        self._db = db

    async def rebuild(self, *, swap: bool) -> Rebuilt:
        async with self._alone():
            await self._create()
            since = await self._db.fetchval(_HORIZON)
            count = 0
            async for ids in self._all():
                count += await self._project(ids)
            for _ in range(_ROUNDS):
                horizon = await self._db.fetchval(_HORIZON)
                ids = _ids(await self._db.fetch(_SINCE, since, horizon))
                await self._project(ids)
                since = horizon
                if len(ids) <= _FEW:
                    break
            differences = await self._compare()
            async with self._db.transaction() as tx:
                if swap:
                    await self._swap(tx, since)
                else:
                    await tx.execute("DROP TABLE next_orders, next_shipments")
        return Rebuilt(count, len(differences), differences[:_DIFFERENCES_NAMED])

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._db.transaction() as tx:
            # It stays open as long as this takes, and has no number of its own: the horizon goes on without it.
            await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            if not await tx.fetchval(_GUARD):
                raise Aborted("another rebuild of the read model is under way")
            yield

    async def _create(self) -> None:
        async with self._db.transaction() as tx:
            for table in _TABLES:
                await tx.execute(f"DROP TABLE IF EXISTS {_NEXT}{table}")
                options = await tx.fetchval(_OPTIONS, table)
                storage = f"WITH ({options})" if options else ""
                like = f"LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE"
                await tx.execute(f"CREATE TABLE {_NEXT}{table} ({like}) {storage}")
                for index in await tx.fetch(_INDEXES, table):
                    name, definition = index["name"], index["definition"]
                    definition = definition.replace(f" INDEX {name} ON ", f" INDEX {_NEXT}{name} ON ")
                    await tx.execute(definition.replace(f".{table} USING", f".{_NEXT}{table} USING"))
                    if index["primary"]:
                        await tx.execute(
                            f"ALTER TABLE {_NEXT}{table} ADD CONSTRAINT {_NEXT}{name} "
                            f"PRIMARY KEY USING INDEX {_NEXT}{name}"
                        )

    async def _all(self) -> AsyncIterator[list[str]]:
        last = _NIL
        while ids := _ids(await self._db.fetch(_IDS, last, _PAGE)):
            last = ids[-1]
            yield ids

    async def _project(self, ids: Sequence[str], tx: Transaction | None = None) -> int:
        """Write the rows of these orders as their events are now; how many there are."""
        if tx is None:
            for start in range(0, len(ids), _PAGE):
                async with self._db.transaction() as own:
                    await self._project(ids[start : start + _PAGE], own)
            return len(ids)
        orders = [_folded(str(id), rows) for id, rows in groupby(await tx.fetch(_STREAMS, ids), lambda r: r[0])]
        await tx.executemany(_ORDERS, map(order_row, orders))
        await tx.executemany(
            _SHIPMENTS,
            [
                (shipment.shipment_id, order.order_id, shipment.ship_time, shipment.deliver_time)
                for order in orders
                for shipment in order.shipments
            ],
        )
        return len(orders)

    async def _compare(self) -> list[str]:
        async with self._db.transaction(isolation="repeatable_read", readonly=True) as tx:
            return [
                f"{what} {row['id']} {row['how']} in the old read model"
                for what, query in (("order", _ORDERS_DIFFER), ("shipment", _SHIPMENTS_DIFFER))
                for row in await tx.fetch(query)
            ]

    async def _swap(self, tx: Transaction, since: str) -> None:
        """Nobody writes an event without a row of `orders`: once it is locked, all that were written can be read."""
        await tx.execute("LOCK TABLE orders, shipments IN ACCESS EXCLUSIVE MODE")
        await self._project(_ids(await tx.fetch(_SINCE, since, None)), tx)
        await tx.execute(_KEEP)
        for table in _TABLES:
            names = [index["name"] for index in await tx.fetch(_INDEXES, table)]
            await tx.execute(f"DROP TABLE {table}")
            await tx.execute(f"ALTER TABLE {_NEXT}{table} RENAME TO {table}")
            for name in names:
                await tx.execute(f"ALTER INDEX {_NEXT}{name} RENAME TO {name}")


def _ids(rows: Iterable[asyncpg.Record]) -> list[str]:
    return [str(row[0]) for row in rows]


def _folded(order_id: str, rows: Iterable[asyncpg.Record]) -> Order:
    try:
        return Order.fold(order_id, [recorded(row) for row in rows])
    except (AssertionError, LookupError, ValueError) as error:
        raise FailedPrecondition(f"order {order_id} can't be read: {error}", reason="EVENTS_UNREADABLE") from error
