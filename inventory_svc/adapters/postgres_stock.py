"""Stock in PostgreSQL: rows locked in order, a batch written in one statement."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from chassis.errors import AlreadyExists
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from inventory_svc.adapters.event_codec import message
from inventory_svc.domain.allocation import Allocation, Shortage
from inventory_svc.domain.reservations import Change, Event, Hold, HoldState
from inventory_svc.domain.stock import Availability, AvailabilityChanged, Level, Units

SOURCE = "inventory_svc"

_WITH_LINES = (HoldState.RESERVED, HoldState.COMMITTED)
_WITH_RETURNS = (HoldState.COMMITTED, HoldState.RELEASED)

REQUESTS_KEPT = timedelta(days=30)
# Every new call takes up to two old ones away, so that they never grow beyond what is to be kept.
_FIRST_USE = """
WITH forgotten AS (
    DELETE FROM requests WHERE request_id IN (
        SELECT request_id FROM requests WHERE created_at < now() - $3::interval AND request_id <> $1
        ORDER BY created_at LIMIT 2 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO requests (request_id, content) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1
"""
_USED = "SELECT content FROM requests WHERE request_id = $1"

# A row for each order before any is locked: of two batches that hear of an order first, one must wait.
_CREATE_HOLDS = """
INSERT INTO holds (order_id, state) SELECT unnest($1::text[]), 'NEW' ON CONFLICT DO NOTHING
"""
_LOCK_HOLDS = """
SELECT order_id, state, shortages FROM holds WHERE order_id = ANY ($1::text[]) ORDER BY order_id FOR UPDATE
"""
# Its own statement: joined to the one above, it would see the lines as they were before the wait for locks.
_RESERVED = """
SELECT order_id, sku, location_id, quantity FROM reservations WHERE order_id = ANY ($1::text[]) ORDER BY 1, 2, 3
"""
_RETURNED = """
SELECT order_id, operation_id, sku, location_id, on_hand_delta FROM movements
WHERE kind = 'RESTOCK' AND order_id = ANY ($1::text[]) ORDER BY id
"""

_CREATE_ITEMS = "INSERT INTO items (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_LOCK_ITEMS = "SELECT sku FROM items WHERE sku = ANY ($1::text[]) ORDER BY sku FOR UPDATE"
# Its own statement too, for the same reason, and only of what is locked: a SKU stocked during the wait isn't.
_LEVELS = """
SELECT sku, availability, availability_version, safety_stock, low_stock, location_id, on_hand, reserved,
    greatest(items.updated_at, stock.updated_at) AS updated_at
FROM items LEFT JOIN stock USING (sku) WHERE sku = ANY ($1::text[]) ORDER BY sku, location_id
"""
_LOCATIONS = "SELECT location_id FROM locations ORDER BY priority, location_id"
_AVAILABILITIES = """
SELECT sku, availability, availability_version FROM items WHERE sku > $1 ORDER BY sku LIMIT $2
"""
_PAGE = 500

# The rows of items and holds are locked and each key comes once, so final values can be written as they are.
_RECORD = """
WITH item AS (
    UPDATE items SET availability = v.availability, availability_version = v.version,
        safety_stock = v.safety_stock, low_stock = v.low_stock, updated_at = now()
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
        AS v (sku, availability, version, safety_stock, low_stock)
    WHERE items.sku = v.sku AND (items.availability_version, items.safety_stock, items.low_stock)
        <> (v.version, v.safety_stock, v.low_stock)
), place AS (
    INSERT INTO stock (sku, location_id, on_hand, reserved)
    SELECT * FROM unnest($6::text[], $7::text[], $8::bigint[], $9::bigint[])
    ON CONFLICT (sku, location_id) DO UPDATE
        SET on_hand = excluded.on_hand, reserved = excluded.reserved, updated_at = now()
), taken AS (
    SELECT order_id, array_agg(DISTINCT sku) AS skus FROM unnest($13::text[], $14::text[]) AS v (order_id, sku)
    GROUP BY order_id
), hold AS (
    UPDATE holds SET state = v.state, shortages = v.shortages, skus = coalesce(v.skus, holds.skus), updated_at = now()
    FROM (
        SELECT order_id, state, shortages, skus
        FROM unnest($10::text[], $11::text[], $12::json[]) AS v (order_id, state, shortages)
        LEFT JOIN taken USING (order_id)
    ) v
    WHERE holds.order_id = v.order_id
), line AS (
    INSERT INTO reservations (order_id, sku, location_id, quantity)
    SELECT * FROM unnest($13::text[], $14::text[], $15::text[], $16::bigint[])
)
INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, order_id, operation_id, reason)
SELECT * FROM unnest(
    $17::text[], $18::text[], $19::text[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::text[]
)
"""


class PostgresBook:
    """`Book` in an open transaction. `causes` are the messages whose commands are carried out, by index."""

    def __init__(self, tx: Transaction, outbox: PostgresOutbox, causes: Sequence[Envelope] = ()):
        self._tx = tx
        self._outbox = outbox
        self._causes = causes

    async def first_use(self, request_id: str, content: bytes) -> bool:
        if await self._tx.fetchval(_FIRST_USE, request_id, content, REQUESTS_KEPT):
            return True
        if await self._tx.fetchval(_USED, request_id) != content:
            message = f"request_id {request_id} was used for another call"
            raise AlreadyExists(message, reason="REQUEST_ID_REUSED")
        return False

    async def holds(self, order_ids: Collection[str]) -> dict[str, Hold]:
        ordered = sorted(order_ids)
        await self._tx.execute(_CREATE_HOLDS, ordered)
        rows = await self._tx.fetch(_LOCK_HOLDS, ordered)
        reserved = await self._reserved([r["order_id"] for r in rows if r["state"] in _WITH_LINES])
        returned = await self._returned([r["order_id"] for r in rows if r["state"] in _WITH_RETURNS])
        return {
            order_id: Hold(
                order_id,
                HoldState(row["state"]),
                tuple(reserved.get(order_id, ())),
                tuple(Shortage(*s) for s in json.loads(row["shortages"] or "[]")),
                {operation_id: tuple(back) for operation_id, back in returned.get(order_id, {}).items()},
            )
            for row in rows
            if (order_id := row["order_id"])
        }

    async def _reserved(self, order_ids: Sequence[str]) -> dict[str, list[Allocation]]:
        found: dict[str, list[Allocation]] = {}
        for order_id, *allocation in await self._tx.fetch(_RESERVED, order_ids) if order_ids else []:
            found.setdefault(order_id, []).append(Allocation(*allocation))
        return found

    async def _returned(self, order_ids: Sequence[str]) -> dict[str, dict[str, list[Allocation]]]:
        found: dict[str, dict[str, list[Allocation]]] = {}
        for order_id, operation_id, *back in await self._tx.fetch(_RETURNED, order_ids) if order_ids else []:
            found.setdefault(order_id, {}).setdefault(operation_id, []).append(Allocation(*back))
        return found

    async def levels(self, skus: Collection[str], *, create: bool = False) -> dict[str, Level]:
        ordered = sorted(skus)
        if not ordered:
            return {}
        if create:
            await self._tx.execute(_CREATE_ITEMS, ordered)
        locked = [row["sku"] for row in await self._tx.fetch(_LOCK_ITEMS, ordered)]
        return _levels(await self._tx.fetch(_LEVELS, locked))

    async def locations(self) -> list[str]:
        return [row["location_id"] for row in await self._tx.fetch(_LOCATIONS)]

    async def record(self, change: Change) -> None:
        try:
            await self._record(change)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "movements_happen_once" or change.holds:
                raise
            # The movements outlive the note of the call that made them.
            used = sorted({move.operation_id for move in change.movements if move.operation_id})
            message = f"request_id {', '.join(used)} was used for another call, over {REQUESTS_KEPT.days} days ago"
            raise AlreadyExists(message, reason="REQUEST_ID_REUSED") from error

    async def _record(self, change: Change) -> None:
        levels, holds, moves = change.levels, change.holds, change.movements
        # Sorted, so that the rows are written in the order in which every batch comes to them.
        moved = sorted({(move.sku, move.location) for move in moves})
        by_sku = {level.sku: level for level in levels}
        # What came and went within the batch left its level as it was.
        places = [(sku, location, by_sku[sku].at[location]) for sku, location in moved if sku in by_sku]
        lines = [(hold.order_id, one) for hold in change.reserved for one in hold.allocations]
        if levels or holds:
            await self._tx.execute(
                _RECORD,
                [level.sku for level in levels],
                [level.availability for level in levels],
                [level.availability_version for level in levels],
                [level.safety_stock for level in levels],
                [level.low_stock for level in levels],
                [sku for sku, _, _ in places],
                [location for _, location, _ in places],
                [units.on_hand for _, _, units in places],
                [units.reserved for _, _, units in places],
                [hold.order_id for hold in holds],
                [hold.state for hold in holds],
                [_shortages(hold) for hold in holds],
                [order_id for order_id, _ in lines],
                [one.sku for _, one in lines],
                [one.location for _, one in lines],
                [one.quantity for _, one in lines],
                [move.sku for move in moves],
                [move.location for move in moves],
                [move.kind for move in moves],
                [move.on_hand for move in moves],
                [move.reserved for move in moves],
                [move.order_id for move in moves],
                [move.operation_id for move in moves],
                [move.reason for move in moves],
            )
        await self._outbox.add(self._tx, [self._envelope(event, index) for event, index in change.events])

    def _envelope(self, event: Event, index: int) -> Envelope:
        aggregate_id, payload = message(event)
        cause = self._causes[index] if self._causes else None
        return Envelope.new(payload, aggregate_id=aggregate_id, source=SOURCE, cause=cause)


class PostgresWarehouse:
    """`Warehouse` over a database."""

    def __init__(self, db: Postgres, outbox: PostgresOutbox):
        self._db = db
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresBook]:
        async with self._db.transaction() as tx:
            yield PostgresBook(tx, self._outbox)

    async def levels(self, skus: Collection[str]) -> dict[str, Level]:
        return _levels(await self._db.fetch(_LEVELS, list(skus)))

    async def availabilities(self) -> AsyncIterator[Sequence[AvailabilityChanged]]:
        # By keys rather than one cursor: a slow reader must not keep a transaction open.
        after = ""
        while rows := await self._db.fetch(_AVAILABILITIES, after, _PAGE):
            # What isn't announced yet will be, by the event of its first flip.
            yield [AvailabilityChanged(s, Availability(a), version) for s, a, version in rows if a]
            after = rows[-1]["sku"]


def _levels(rows: Sequence[asyncpg.Record]) -> dict[str, Level]:
    """Levels of rows that are one for each SKU and location, or one with no location for a SKU without stock."""
    places: dict[str, dict[str, Units]] = {}
    for row in rows:
        at = places.setdefault(row["sku"], {})
        if row["location_id"] is not None:
            at[row["location_id"]] = Units(row["on_hand"], row["reserved"])
    levels: dict[str, Level] = {}
    for row in rows:
        sku, updated_at = row["sku"], row["updated_at"]
        if sku in levels:
            updated_at = max(updated_at, levels[sku].updated_at)
        levels[sku] = Level(
            sku,
            places[sku],
            Availability(row["availability"]) if row["availability"] else None,
            row["availability_version"],
            row["safety_stock"],
            row["low_stock"],
            updated_at,
        )
    return levels


def _shortages(hold: Hold) -> str | None:
    return json.dumps([(s.sku, s.wanted, s.available) for s in hold.shortages]) if hold.shortages else None
