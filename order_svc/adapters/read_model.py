"""The read model compared with its source."""

from collections.abc import AsyncIterator
from itertools import groupby

import asyncpg

from chassis.postgres import Postgres, Transaction
from order_svc.adapters.event_codec import event_from_bytes
from order_svc.domain.order import Order, OrderPlaced, Recorded

_PAGE = 500

_ORDER_IDS = "SELECT stream_id AS order_id FROM events WHERE version = 1 AND stream_id > $1 ORDER BY stream_id LIMIT $2"
_EVENTS = """
SELECT stream_id, version, type, schema_version, data, occurred_at FROM events
WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version
"""
_ROWS = """
SELECT order_id, customer_id, status, settled, currency, total_nanos, failure_reason, failure_message, place_time,
    update_time, deadline, version, refunded_nanos
FROM orders WHERE order_id = ANY ($1::uuid[])
"""
_WITHOUT_EVENTS = """
SELECT order_id FROM orders
WHERE NOT EXISTS (SELECT FROM events WHERE stream_id = order_id AND version = 1) ORDER BY order_id
"""
_WITHOUT_START = """
SELECT DISTINCT stream_id FROM events AS later
WHERE version > 1 AND NOT EXISTS (SELECT FROM events WHERE stream_id = later.stream_id AND version = 1)
"""
_NIL = "00000000-0000-0000-0000-000000000000"


async def read_model_faults(db: Postgres) -> list[str]:
    """Where `orders` differs from the fold of `events`, or these have gaps or can't be read; a sentence each. Reads
    only."""
    faults: list[str] = []
    async with db.transaction(isolation="repeatable_read", readonly=True) as tx:
        faults += [f"order {row['order_id']} has no events" for row in await tx.fetch(_WITHOUT_EVENTS)]
        faults += [f"order {row['stream_id']} has no first event" for row in await tx.fetch(_WITHOUT_START)]
        async for order_ids, histories in _pages(tx):
            stored = {str(row["order_id"]): _values(row) for row in await tx.fetch(_ROWS, order_ids)}
            for order_id in order_ids:
                faults += _faults(order_id, histories[order_id], stored.get(order_id))
    return faults


def _faults(order_id: str, events: list[asyncpg.Record], row: tuple[object, ...] | None) -> list[str]:
    if [event["version"] for event in events] != list(range(1, len(events) + 1)):
        return [f"order {order_id}: the versions of its events have gaps"]
    history: list[Recorded] = []
    for event in events:
        try:
            history.append(_recorded(event))
        except ValueError as error:
            return [f"order {order_id}: its event {event['version']} can't be read: {error}"]
    if not isinstance(history[0].event, OrderPlaced):
        return [f"order {order_id} doesn't begin with OrderPlaced"]
    if row is None:
        return [f"order {order_id} has events but isn't in the read model"]
    try:
        folded = _row(Order.fold(order_id, history))
    except ValueError as error:
        return [f"order {order_id}: its events make no order: {error}"]
    if row != folded:
        differing = [
            f"{name} is {had!r} instead of {wanted!r}"
            for name, had, wanted in zip(_NAMES, row, folded, strict=True)
            if had != wanted
        ]
        return [f"order {order_id}: {', '.join(differing)} in the read model"]
    return []


async def _pages(tx: Transaction) -> AsyncIterator[tuple[list[str], dict[str, list[asyncpg.Record]]]]:
    """All orders with the rows of their events, some hundred at a time."""
    last = _NIL
    while ids := [str(row["order_id"]) for row in await tx.fetch(_ORDER_IDS, last, _PAGE)]:
        last = ids[-1]
        rows = await tx.fetch(_EVENTS, ids)
        yield ids, {str(id): list(group) for id, group in groupby(rows, lambda row: row["stream_id"])}


def _recorded(row: asyncpg.Record) -> Recorded:
    event = event_from_bytes(row["type"], row["schema_version"], row["data"])
    return Recorded(row["version"], row["occurred_at"], event)


_NAMES = (
    "order_id", "customer_id", "status", "settled", "currency", "total_nanos", "failure_reason", "failure_message",
    "place_time", "update_time", "deadline", "version", "refunded_nanos",
)  # fmt: skip


def _row(order: Order) -> tuple[object, ...]:
    failure = order.failure
    return (
        order.order_id,
        order.customer_id,
        str(order.status),
        order.settled,
        order.total.currency,
        order.total.nanos,
        str(failure.reason) if failure else None,
        failure.message if failure else None,
        order.place_time,
        order.update_time,
        order.deadline,
        order.version,
        order.refunded.nanos,
    )


def _values(row: asyncpg.Record) -> tuple[object, ...]:
    values = tuple(row[name] for name in _NAMES)
    return (str(values[0]), *values[1:])
