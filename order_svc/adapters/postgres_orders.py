"""Orders in PostgreSQL: the event store, its read model and the outbox, written together."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from typing import NamedTuple

import asyncpg
from google.protobuf.message import Message

from chassis.errors import Aborted, AlreadyExists, NotFound
from chassis.ids import uuid7
from chassis.messaging.envelope import Envelope
from chassis.money import Money
from chassis.outbox.port import OutboxEntry
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from chassis.telemetry import current_traceparent
from order_svc.adapters.event_codec import (
    PACKAGE,
    PUBLISHED,
    SCHEMA_VERSION,
    command_to_proto,
    event_from_bytes,
    event_to_proto,
    shown_bytes,
    without_secrets,
)
from order_svc.adapters.postgres_shipments import project_shipments
from order_svc.application.ports import Change, Filter, HistoryEntry, OrderSummary, Request
from order_svc.domain.order import (
    Event,
    Failure,
    FailureReason,
    Order,
    OrderDelivered,
    OrderShipped,
    Recorded,
    Status,
)
from order_svc.domain.saga import Decision

SOURCE = "order_svc"

_FIND_REQUEST = "SELECT order_id, fingerprint FROM requests WHERE customer_id = $1 AND request_id = $2"

_STREAMS = """
SELECT stream_id, version, type, schema_version, data, occurred_at, actor, cause, causation_id FROM events
WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version
"""

# One statement, one round trip, one fsync: everything hangs on the claim of the request, which waits for a
# concurrent one to commit or roll back. The outbox is filled here rather than by its own statement for that reason.
_PLACE = """
WITH claimed AS (
    INSERT INTO requests (customer_id, request_id, fingerprint, order_id) VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING RETURNING order_id
), stored AS (
    INSERT INTO events (stream_id, version, type, schema_version, data, message_id, occurred_at, traceparent)
    SELECT order_id, 1, 'OrderPlaced', $5::smallint, $6::bytea, $7::uuid, $8::timestamptz, $9::text FROM claimed
), projected AS (
    INSERT INTO orders (order_id, customer_id, status, settled, currency, total_nanos, place_time, update_time,
        deadline, version)
    SELECT order_id, $1, 'PENDING', false, $10::text, $11::bigint, $8, $8, $12::timestamptz, 1 FROM claimed
), queued AS (
    INSERT INTO outbox (id, aggregate_id, subject, headers, data)
    SELECT id, claimed.order_id::text, subject, headers, data
    FROM claimed, unnest($13::uuid[], $14::text[], $15::json[], $16::bytea[])
        WITH ORDINALITY AS queue (id, subject, headers, data, place)
    ORDER BY place
)
SELECT count(*) FROM claimed
"""

# In the order of ids, so that two batches that share orders wait for each other rather than deadlock. The streams
# are read by the next statement: this one's snapshot is older than its locks.
_LOCK = "SELECT order_id FROM orders WHERE order_id = ANY ($1::uuid[]) ORDER BY order_id FOR NO KEY UPDATE"
_LOCK_OVERDUE = """
SELECT order_id FROM orders WHERE status = 'PENDING' AND deadline <= $1
ORDER BY deadline LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
"""
_LOCK_STALLED = """
UPDATE orders SET asked_again_at = $2 WHERE order_id IN (
    SELECT order_id FROM orders WHERE NOT settled AND greatest(update_time, asked_again_at) <= $1
    ORDER BY order_id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
) RETURNING order_id
"""

_APPEND = """
WITH stored AS (
    INSERT INTO events (stream_id, version, type, schema_version, data, message_id, occurred_at, causation_id,
        traceparent, actor, cause)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::smallint[], $5::bytea[], $6::uuid[],
        $7::timestamptz[], $8::uuid[], $9::text[], $10::text[], $11::text[])
)
UPDATE orders SET status = new.status, settled = new.settled, failure_reason = new.failure_reason,
    failure_message = new.failure_message, update_time = new.update_time, version = new.version,
    refunded_nanos = new.refunded_nanos
FROM unnest($12::uuid[], $13::text[], $14::boolean[], $15::text[], $16::text[], $17::timestamptz[], $18::int[],
    $19::bigint[])
    AS new (order_id, status, settled, failure_reason, failure_message, update_time, version, refunded_nanos)
WHERE orders.order_id = new.order_id
"""

_SUMMARY = """
SELECT order_id, customer_id, status, settled, currency, total_nanos, failure_reason, failure_message, place_time,
    update_time, deadline, version, refunded_nanos
FROM orders
"""
_STUCK = """
SELECT order_id FROM orders WHERE NOT settled AND (update_time <= $1 OR status = 'PENDING' AND deadline <= $2)
    AND (update_time, order_id) > ($3::timestamptz, $4::uuid)
ORDER BY update_time, order_id LIMIT $5
"""
_BEFORE_ALL = datetime(1, 1, 1, tzinfo=UTC), "00000000-0000-0000-0000-000000000000"
_VERSIONS = "SELECT order_id, version FROM orders WHERE order_id = ANY ($1::uuid[])"


class _StoredEvent(NamedTuple):
    stream_id: str
    version: int
    type: str
    schema_version: int
    data: bytes
    message_id: str
    occurred_at: datetime
    causation_id: str | None
    traceparent: str | None
    actor: str
    cause: str


class PostgresOrders:
    """The ports PlacedOrders, ReadableOrders, WatchedOrders and ChangeableOrders.

    `relay` is called after each commit that left something to publish, `changed` with the ids of changed orders.
    """

    def __init__(
        self,
        db: Postgres,
        outbox: PostgresOutbox,
        *,
        relay: Callable[[], None],
        changed: Callable[[Collection[str]], None],
    ):
        self._db = db
        self._outbox = outbox
        self._relay = relay
        self._changed = changed

    async def placed_by(self, request: Request) -> Order | None:
        row = await self._db.fetchrow(_FIND_REQUEST, request.customer_id, request.request_id)
        if row is None:
            return None
        if row["fingerprint"] != request.fingerprint:
            raise AlreadyExists(f"request {request.request_id} placed another order before", reason="REQUEST_ID_REUSED")
        return await self.get(str(row["order_id"]))

    async def add(self, request: Request, decision: Decision, *, tx: Transaction | None = None) -> Order:
        order = decision.order
        events, envelopes = _messages([Change(decision)])
        (placed,) = events
        entries = [OutboxEntry.of(envelope) for envelope in envelopes]
        claimed = await (tx or self._db).fetchval(
            _PLACE,
            request.customer_id,
            request.request_id,
            request.fingerprint,
            order.order_id,
            placed.schema_version,
            placed.data,
            placed.message_id,
            placed.occurred_at,
            placed.traceparent,
            order.total.currency,
            order.total.nanos,
            order.deadline,
            [entry.id for entry in entries],
            [entry.subject for entry in entries],
            [json.dumps(entry.headers) for entry in entries],
            [entry.data for entry in entries],
        )
        if not claimed:
            winner = await self.placed_by(request)
            assert winner is not None
            return winner
        if tx:
            tx.after_commit(self._relay)
        else:
            self._relay()
        return order

    async def get(self, order_id: str) -> Order:
        return Order.fold(order_id, _decoded(await self._stream(order_id)))

    async def history(self, order_id: str) -> Sequence[HistoryEntry]:
        rows = await self._stream(order_id)
        buyer = Order.fold(order_id, _decoded(rows[:1])).buyer
        return [_entry(row, buyer) for row in rows]

    async def _stream(self, order_id: str) -> list[asyncpg.Record]:
        rows = await self._db.fetch(_STREAMS, [order_id])
        if not rows:
            raise NotFound(f"no order {order_id}")
        return rows

    async def page(self, which: Filter, *, before: tuple[datetime, str] | None, limit: int) -> Sequence[OrderSummary]:
        conditions: list[str] = []
        values: list[object] = []
        for condition, value in (
            ("customer_id <> '' AND customer_id = {}", which.customer_id),
            ("status = {}", which.status),
            ("place_time >= {}", which.placed_from),
            ("place_time < {}", which.placed_before),
        ):
            if value is not None:
                values.append(value)
                conditions.append(condition.format(f"${len(values)}"))
        if before is not None:
            values += before
            conditions.append(f"(place_time, order_id) < (${len(values) - 1}::timestamptz, ${len(values)}::uuid)")
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        values.append(limit)
        query = f"{_SUMMARY} {where} ORDER BY place_time DESC, order_id DESC LIMIT ${len(values)}"
        return [_summary(row) for row in await self._db.fetch(query, *values)]

    async def stuck(
        self, since: datetime, now: datetime, *, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Order]:
        rows = await self._db.fetch(_STUCK, since, now, *(after or _BEFORE_ALL), limit)
        histories = await self.histories([str(row["order_id"]) for row in rows])
        return [Order.fold(id, histories[id]) for row in rows if (id := str(row["order_id"])) in histories]

    async def versions(self, order_ids: Collection[str]) -> Mapping[str, int]:
        rows = await self._db.fetch(_VERSIONS, list(order_ids))
        return {str(row["order_id"]): row["version"] for row in rows}

    async def histories(self, order_ids: Collection[str]) -> Mapping[str, Sequence[Recorded]]:
        return _by_stream(await self._db.fetch(_STREAMS, list(order_ids)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._db.transaction() as tx:
            yield tx

    async def locked(self, order_ids: Collection[str], *, tx: Transaction) -> Mapping[str, Order]:
        await tx.execute(_LOCK, list(order_ids))
        return await self._load(order_ids, tx)

    async def overdue(self, now: datetime, *, limit: int, tx: Transaction) -> Mapping[str, Order]:
        rows = await tx.fetch(_LOCK_OVERDUE, now, limit)
        return await self._load([str(row["order_id"]) for row in rows], tx) if rows else {}

    async def stalled(self, since: datetime, now: datetime, *, limit: int, tx: Transaction) -> Mapping[str, Order]:
        rows = await tx.fetch(_LOCK_STALLED, since, now, limit)
        return await self._load([str(row["order_id"]) for row in rows], tx) if rows else {}

    async def _load(self, order_ids: Collection[str], tx: Transaction) -> Mapping[str, Order]:
        streams = _by_stream(await tx.fetch(_STREAMS, list(order_ids)))
        return {order_id: Order.fold(order_id, history) for order_id, history in streams.items()}

    async def append(self, changes: Sequence[Change[Envelope]], *, tx: Transaction) -> None:
        if not changes:
            return
        events, envelopes = _messages(changes)
        orders = {change.decision.order.order_id: change.decision.order for change in changes}
        try:
            await tx.execute(_APPEND, *_columns(events, 11), *_columns(map(_projected, orders.values()), 8))
        except asyncpg.UniqueViolationError as error:
            raise Aborted("an order was changed meanwhile") from error
        moved = {change.decision.order.order_id for change in changes if any(map(_ships, change.decision.events))}
        await project_shipments(tx, (orders[order_id] for order_id in moved))
        await self._outbox.add(tx, envelopes)
        tx.after_commit(lambda: self._changed(orders.keys()))


def _ships(event: Event) -> bool:
    return isinstance(event, OrderShipped | OrderDelivered)


def _messages(changes: Sequence[Change[Envelope]]) -> tuple[list[_StoredEvent], list[Envelope]]:
    """The rows of all events, and what is to be published: each change's events before its commands."""
    events: list[_StoredEvent] = []
    envelopes: list[Envelope] = []
    for change in changes:
        order, cause = change.decision.order, change.cause

        def publish(message: Message, id: str, order: Order = order, cause: Envelope | None = cause) -> Envelope:
            return Envelope.new(
                message,
                aggregate_id=order.order_id,
                source=SOURCE,
                cause=cause,
                id=id,
                now=order.update_time,
                correlation_id=order.order_id,
            )

        traceparent = (cause.traceparent if cause else None) or current_traceparent()
        first = order.version - len(change.decision.events) + 1
        for version, event in enumerate(change.decision.events, first):
            message, id = event_to_proto(event, order, version), uuid7()
            type = message.DESCRIPTOR.name
            if type in PUBLISHED:
                envelopes.append(publish(without_secrets(message), id))
            events.append(
                _StoredEvent(
                    order.order_id,
                    version,
                    type,
                    SCHEMA_VERSION,
                    message.SerializeToString(),
                    id,
                    order.update_time,
                    cause.id if cause else None,
                    traceparent,
                    cause.source if cause else change.origin.actor,
                    cause.type if cause else change.origin.cause,
                )
            )
        envelopes.extend(
            publish(command_to_proto(command, order.order_id), uuid7()) for command in change.decision.commands
        )
    return events, envelopes


def _columns(rows: Iterable[Sequence[object]], width: int) -> list[list[object]]:
    columns: list[list[object]] = [[] for _ in range(width)]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns


def _projected(order: Order) -> tuple[object, ...]:
    failure = order.failure
    return (
        order.order_id,
        order.status,
        order.settled,
        failure.reason if failure else None,
        failure.message if failure else None,
        order.update_time,
        order.version,
        order.refunded.nanos,
    )


def _decoded(rows: Iterable[asyncpg.Record]) -> list[Recorded]:
    return [
        Recorded(
            row["version"],
            row["occurred_at"],
            event_from_bytes(row["type"], row["schema_version"], row["data"]),
        )
        for row in rows
    ]


def _entry(row: asyncpg.Record, buyer: str) -> HistoryEntry:
    """The first event of an order is its buyer's doing: that isn't stored again."""
    first = row["version"] == 1
    return HistoryEntry(
        row["version"],
        row["occurred_at"],
        f"{PACKAGE}.{row['type']}",
        shown_bytes(row["type"], row["schema_version"], row["data"]),
        actor=buyer if first else row["actor"] or "",
        cause="PlaceOrder" if first else row["cause"] or "",
        cause_id=str(row["causation_id"] or ""),
    )


def _by_stream(rows: Iterable[asyncpg.Record]) -> dict[str, list[Recorded]]:
    """Rows sorted by stream, as histories."""
    return {str(id): _decoded(group) for id, group in groupby(rows, key=lambda row: row["stream_id"])}


def _summary(row: asyncpg.Record) -> OrderSummary:
    reason = row["failure_reason"]
    return OrderSummary(
        order_id=str(row["order_id"]),
        customer_id=row["customer_id"],
        status=Status(row["status"]),
        settled=row["settled"],
        total=Money(row["currency"], row["total_nanos"]),
        failure=Failure(FailureReason(reason), row["failure_message"]) if reason else None,
        place_time=row["place_time"],
        update_time=row["update_time"],
        deadline=row["deadline"],
        version=row["version"],
        refunded=Money(row["currency"], row["refunded_nanos"]),
    )
