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
_SHIPMENTS = """
SELECT order_id, shipment_id, ship_time, deliver_time FROM shipments WHERE order_id = ANY ($1::uuid[])
"""
_SHIPMENTS_WITHOUT_EVENTS = """
SELECT shipment_id FROM shipments
WHERE NOT EXISTS (SELECT FROM events WHERE stream_id = order_id AND version = 1) ORDER BY shipment_id
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
    """Where `orders` and `shipments` differ from the fold of `events`, or these have gaps or can't be read; a sentence
    each. Reads only."""
    faults: list[str] = []
    async with db.transaction(isolation="repeatable_read", readonly=True) as tx:
        faults += [f"order {row['order_id']} has no events" for row in await tx.fetch(_WITHOUT_EVENTS)]
        faults += [f"order {row['stream_id']} has no first event" for row in await tx.fetch(_WITHOUT_START)]
        lost = await tx.fetch(_SHIPMENTS_WITHOUT_EVENTS)
        faults += [f"shipment {row['shipment_id']} is of an order without events" for row in lost]
        async for order_ids, histories in pages(tx):
            stored = {str(row["order_id"]): _values(row) for row in await tx.fetch(_ROWS, order_ids)}
            shipped: dict[str, set[tuple[object, ...]]] = {}
            for row in await tx.fetch(_SHIPMENTS, order_ids):
                shipped.setdefault(str(row["order_id"]), set()).add(
                    (str(row["shipment_id"]), row["ship_time"], row["deliver_time"])
                )
            for order_id in order_ids:
                rows = stored.get(order_id), shipped.get(order_id, set())
                faults += _faults(order_id, histories[order_id], *rows)
    return faults


def _faults(
    order_id: str, events: list[asyncpg.Record], row: tuple[object, ...] | None, shipped: set[tuple[object, ...]]
) -> list[str]:
    if [event["version"] for event in events] != list(range(1, len(events) + 1)):
        return [f"order {order_id}: the versions of its events have gaps"]
    history: list[Recorded] = []
    for event in events:
        try:
            history.append(recorded(event))
        except ValueError as error:
            return [f"order {order_id}: its event {event['version']} can't be read: {error}"]
    if not isinstance(history[0].event, OrderPlaced):
        return [f"order {order_id} doesn't begin with OrderPlaced"]
    if row is None:
        return [f"order {order_id} has events but isn't in the read model"]
    try:
        order = Order.fold(order_id, history)
    except ValueError as error:
        return [f"order {order_id}: its events make no order: {error}"]
    folded = order_row(order)
    if {(one.shipment_id, one.ship_time, one.deliver_time) for one in order.shipments} != shipped:
        return [f"order {order_id} has other shipments in the read model than in its events"]
    if row != folded:
        differing = [
            f"{name} is {had!r} instead of {wanted!r}"
            for name, had, wanted in zip(NAMES, row, folded, strict=True)
            if had != wanted
        ]
        return [f"order {order_id}: {', '.join(differing)} in the read model"]
    return []


async def pages(tx: Transaction) -> AsyncIterator[tuple[list[str], dict[str, list[asyncpg.Record]]]]:
    """All orders with the rows of their events, some hundred at a time."""
    last = _NIL
    while ids := [str(row["order_id"]) for row in await tx.fetch(_ORDER_IDS, last, _PAGE)]:
        last = ids[-1]
        rows = await tx.fetch(_EVENTS, ids)
        yield ids, {str(id): list(group) for id, group in groupby(rows, lambda row: row["stream_id"])}


def recorded(row: asyncpg.Record) -> Recorded:
    event = event_from_bytes(row["type"], row["schema_version"], row["data"])
    return Recorded(row["version"], row["occurred_at"], event)


NAMES = (
    "order_id", "customer_id", "status", "settled", "currency", "total_nanos", "failure_reason", "failure_message",
    "place_time", "update_time", "deadline", "version", "refunded_nanos",
)  # fmt: skip


def order_row(order: Order) -> tuple[object, ...]:
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
    values = tuple(row[name] for name in NAMES)
    return (str(values[0]), *values[1:])
