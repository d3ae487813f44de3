"""Stock in PostgreSQL: rows locked in order, a batch written in one statement."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from google.protobuf.message import Message
from polymart.inventory.v1 import events_pb2, stock_pb2

from chassis.errors import AlreadyExists
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from inventory_svc.domain.reservations import (
    Change,
    Committed,
    Event,
    Hold,
    HoldState,
    Line,
    Rejected,
    Released,
    Reserved,
    Shortage,
)
from inventory_svc.domain.stock import Availability, AvailabilityChanged, Level

SOURCE = "inventory_svc"

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
_LINES = "SELECT order_id, sku, quantity FROM reservations WHERE order_id = ANY ($1::text[]) ORDER BY 1, 2"

_CREATE_LEVELS = "INSERT INTO stock (sku) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
_LEVEL = "SELECT sku, on_hand, reserved, availability, availability_version, updated_at FROM stock"
_LOCK_LEVELS = f"{_LEVEL} WHERE sku = ANY ($1::text[]) ORDER BY sku FOR UPDATE"
_LEVELS = f"{_LEVEL} WHERE sku = ANY ($1::text[])"
_LEVELS_AFTER = f"{_LEVEL} WHERE sku > $1 ORDER BY sku LIMIT $2"
_PAGE = 500

# The rows of stock and holds are locked and each key comes once, so final values can be written as they are.
_RECORD = """
WITH level AS (
    UPDATE stock SET on_hand = v.on_hand, reserved = v.reserved, availability = v.availability,
        availability_version = v.version, updated_at = now()
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[])
        AS v (sku, on_hand, reserved, availability, version)
    WHERE stock.sku = v.sku
), hold AS (
    UPDATE holds SET state = v.state, shortages = v.shortages, updated_at = now()
    FROM unnest($6::text[], $7::text[], $8::json[]) AS v (order_id, state, shortages)
    WHERE holds.order_id = v.order_id
), line AS (
    INSERT INTO reservations (order_id, sku, quantity)
    SELECT * FROM unnest($9::text[], $10::text[], $11::bigint[])
)
INSERT INTO movements (sku, kind, on_hand_delta, reserved_delta, order_id, operation_id, reason)
SELECT * FROM unnest(
    $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::text[]
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
        reserved = [r["order_id"] for r in rows if r["state"] in (HoldState.RESERVED, HoldState.COMMITTED)]
        lines: dict[str, list[Line]] = {}
        for row in await self._tx.fetch(_LINES, reserved) if reserved else []:
            lines.setdefault(row["order_id"], []).append(Line(row["sku"], row["quantity"]))
        return {
            row["order_id"]: Hold(
                row["order_id"],
                HoldState(row["state"]),
                tuple(lines.get(row["order_id"], ())),
                tuple(Shortage(*s) for s in json.loads(row["shortages"] or "[]")),
            )
            for row in rows
        }

    async def levels(self, skus: Collection[str], *, create: bool = False) -> dict[str, Level]:
        ordered = sorted(skus)
        if create:
            await self._tx.execute(_CREATE_LEVELS, ordered)
        return _levels(await self._tx.fetch(_LOCK_LEVELS, ordered)) if ordered else {}

    async def record(self, change: Change) -> None:
        levels, holds, moves = change.levels, change.holds, change.movements
        lines = [(hold.order_id, line.sku, line.quantity) for hold in change.reserved for line in hold.lines]
        if levels or holds:
            await self._tx.execute(
                _RECORD,
                [level.sku for level in levels],
                [level.on_hand for level in levels],
                [level.reserved for level in levels],
                [level.availability for level in levels],
                [level.availability_version for level in levels],
                [hold.order_id for hold in holds],
                [hold.state for hold in holds],
                [_shortages(hold) for hold in holds],
                [order_id for order_id, _, _ in lines],
                [sku for _, sku, _ in lines],
                [quantity for _, _, quantity in lines],
                [move.sku for move in moves],
                [move.kind for move in moves],
                [move.on_hand for move in moves],
                [move.reserved for move in moves],
                [move.order_id for move in moves],
                [move.operation_id for move in moves],
                [move.reason for move in moves],
            )
        await self._outbox.add(self._tx, [self._envelope(event, index) for event, index in change.events])

    def _envelope(self, event: Event, index: int) -> Envelope:
        aggregate_id, payload = _message(event)
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

    async def every_level(self) -> AsyncIterator[Sequence[Level]]:
        # By keys rather than one cursor: a slow reader must not keep a transaction open.
        after = ""
        while rows := await self._db.fetch(_LEVELS_AFTER, after, _PAGE):
            yield list(_levels(rows).values())
            after = rows[-1]["sku"]


def _levels(rows: Sequence[asyncpg.Record]) -> dict[str, Level]:
    return {
        row["sku"]: Level(
            row["sku"],
            row["on_hand"],
            row["reserved"],
            Availability(row["availability"]) if row["availability"] else None,
            row["availability_version"],
            row["updated_at"],
        )
        for row in rows
    }


def _shortages(hold: Hold) -> str | None:
    return json.dumps([(s.sku, s.wanted, s.available) for s in hold.shortages]) if hold.shortages else None


def _message(event: Event) -> tuple[str, Message]:
    """The aggregate's id and the message an event is published as."""
    match event:
        case Reserved(order_id):
            return order_id, events_pb2.StockReserved(order_id=order_id)
        case Rejected(order_id, shortages):
            return order_id, events_pb2.StockRejected(
                order_id=order_id,
                shortages=[events_pb2.Shortage(sku=s.sku, wanted=s.wanted, available=s.available) for s in shortages],
            )
        case Committed(order_id):
            return order_id, events_pb2.StockCommitted(order_id=order_id)
        case Released(order_id):
            return order_id, events_pb2.StockReleased(order_id=order_id)
        case AvailabilityChanged(sku, availability, version):
            value = stock_pb2.Availability.Value(f"AVAILABILITY_{availability}")
            return sku, events_pb2.StockAvailabilityChanged(sku=sku, availability=value, version=version)
