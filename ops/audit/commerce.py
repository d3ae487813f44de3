"""Orders and stock: each service's books, and the books of all of them side by side."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import asyncpg

from inventory_svc.domain.stock import Availability
from ops.audit.fulfilment import audit_fulfilment
from ops.audit.money import audit_money
from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.adapters.event_codec import event_from_bytes
from order_svc.adapters.read_model import read_model_faults
from order_svc.domain.order import OrderPlaced
from order_svc.domain.saga import STANDING

Rows = list[asyncpg.Record]

_STOCK = """
SELECT coalesce(s.sku, m.sku, o.sku) AS sku, coalesce(s.location_id, m.location_id, o.location_id) AS location,
    s.sku IS NULL AS missing, s.on_hand, s.reserved,
    coalesce(m.on_hand, 0) AS moved, coalesce(m.reserved, 0) AS held, coalesce(o.open, 0) AS open,
    coalesce(m.lowest, 0) AS lowest
FROM stock s
FULL JOIN (
    SELECT sku, location_id, sum(on_hand_delta)::bigint AS on_hand, sum(reserved_delta)::bigint AS reserved,
        min(level) AS lowest
    FROM (SELECT *, sum(on_hand_delta) OVER (PARTITION BY sku, location_id ORDER BY id) AS level FROM movements) AS r
    GROUP BY sku, location_id
) m ON (m.sku, m.location_id) = (s.sku, s.location_id)
FULL JOIN (
    SELECT r.sku, r.location_id, sum(r.quantity)::bigint AS open FROM reservations r JOIN holds h USING (order_id)
    WHERE h.state = 'RESERVED' GROUP BY r.sku, r.location_id
) o ON (o.sku, o.location_id) = (coalesce(s.sku, m.sku), coalesce(s.location_id, m.location_id))
ORDER BY 1, 2
"""
# What a shopper was told of each SKU, beside the units it was told of.
_TOLD = """
SELECT sku, availability, low_stock,
    greatest(coalesce(sum(on_hand - reserved), 0) - safety_stock, 0)::bigint AS available
FROM items LEFT JOIN stock USING (sku) GROUP BY sku ORDER BY sku
"""
_SOLD = """
SELECT order_id, sku, coalesce(-sum(on_hand_delta) FILTER (WHERE kind <> 'RESTOCK'), 0)::bigint AS units,
    coalesce(sum(on_hand_delta) FILTER (WHERE kind = 'RESTOCK'), 0)::bigint AS returned
FROM movements WHERE order_id IS NOT NULL GROUP BY order_id, sku
"""
# The request of each order, and what else there is of either.
_REQUESTS = """
SELECT coalesce(o.order_id, r.order_id) AS order_id, o.order_id IS NULL AS lost, count(r.order_id) AS requests,
    bool_and(r.customer_id = o.customer_id) AS same_customer
FROM orders o FULL JOIN requests r ON r.order_id = o.order_id
GROUP BY o.order_id, r.order_id
HAVING o.order_id IS NULL OR count(r.order_id) <> 1 OR NOT bool_and(r.customer_id = o.customer_id)
ORDER BY 1
"""
# Stock is held first, if there is anything to hold; payment is asked next.
_HELD = "SELECT stream_id FROM events WHERE type = 'OrderStockReserved'"
_RESERVED = "SELECT order_id, sku, sum(quantity)::bigint AS quantity FROM reservations GROUP BY order_id, sku"


async def audit_commerce(stores: Stores, report: Report) -> None:
    orders = await stores.orders.fetch("SELECT * FROM orders ORDER BY order_id")
    requests = await stores.orders.fetch(_REQUESTS)
    placed = _tracked(
        await stores.orders.fetch("SELECT stream_id, schema_version, data FROM events WHERE type = 'OrderPlaced'")
    )
    held = {str(row["stream_id"]) for row in await stores.orders.fetch(_HELD)}
    charged = held | {order_id for order_id, units in placed.items() if not units}
    holds = await stores.inventory.fetch("SELECT order_id, state FROM holds")
    reserved = await stores.inventory.fetch(_RESERVED)
    sold = await stores.inventory.fetch(_SOLD)
    stock = await stores.inventory.fetch(_STOCK)
    told = await stores.inventory.fetch(_TOLD)

    report.add("orders settle", len(orders), _unsettled(orders))
    report.add("orders and requests agree", len(orders), _requests_of_orders(requests))
    report.add("the read model is the fold of the events", len(orders), await read_model_faults(stores.orders))
    report.add("stock is the sum of its movements", len(stock), _stock_faults(stock))
    report.add("availability is what the stock means", len(told), _availability_faults(told))
    report.add("orders and stock agree", len(orders), _stock_of_orders(orders, placed, holds, reserved, sold))
    await audit_fulfilment(stores, report)
    await audit_money(stores, orders, charged, report)


def _unsettled(orders: Rows) -> Iterator[str]:
    for order in orders:
        if not order["settled"]:
            yield f"order {order['order_id']} is {order['status']} and not settled"


def _requests_of_orders(rows: Rows) -> Iterator[str]:
    for row in rows:
        if row["lost"]:
            yield f"a request placed order {row['order_id']}, which doesn't exist"
        elif row["requests"] != 1:
            yield f"order {row['order_id']} was placed by {row['requests']} requests"
        else:
            yield f"order {row['order_id']} was placed by a request of another customer"


def _stock_faults(stock: Rows) -> Iterator[str]:
    for row in stock:
        name = f"SKU {row['sku']} at {row['location']}"
        if row["missing"]:
            yield f"{name} has movements or reservations but no stock row"
            continue
        if row["on_hand"] != row["moved"]:
            yield f"{name} has {row['on_hand']} on hand, its movements sum to {row['moved']}"
        if row["reserved"] != row["held"]:
            yield f"{name} has {row['reserved']} reserved, its movements sum to {row['held']}"
        if row["reserved"] != row["open"]:
            yield f"{name} has {row['reserved']} reserved, its open reservations sum to {row['open']}"
        if not 0 <= row["reserved"] <= row["on_hand"]:
            yield f"{name} has {row['reserved']} reserved of {row['on_hand']} on hand"
        if row["lowest"] < 0:
            yield f"{name} was sold beyond what there was: down to {row['lowest']}"


def _availability_faults(told: Rows) -> Iterator[str]:
    for row in told:
        available = row["available"]
        meant = Availability.of(available, row["low_stock"])
        if row["availability"] != meant:
            yield f"SKU {row['sku']} is announced as {row['availability']}, with {available} available it is {meant}"


def _stock_of_orders(
    orders: Rows, wanted: Mapping[str, Counter[str]], holds: Rows, reserved: Rows, sold: Rows
) -> Iterator[str]:
    """An order that stands, confirmed and whatever came after, took exactly its tracked lines out of the warehouse, any
    other nothing; what was returned of it is no more than it took."""
    taken = _by_order(sold, "units")
    returned = _by_order(sold, "returned")
    lines = _by_order(reserved, "quantity")
    states = {row["order_id"]: row["state"] for row in holds}
    known = set()
    for order in orders:
        order_id = str(order["order_id"])
        known.add(order_id)
        if order_id not in wanted:
            continue  # named by the read model's audit: there is nothing to compare with
        state = states.get(order_id)
        stands = order["status"] in STANDING
        expected = wanted[order_id] if stands else Counter()
        # What was returned before an order was released isn't put back by the release.
        left = taken[order_id] if stands else taken[order_id] - returned[order_id]
        if left != expected:
            yield f"order {order_id} is {order['status']}: {_differences(left, expected)} left the warehouse"
        if more := returned[order_id] - taken[order_id]:
            yield f"order {order_id} returned more than it took: {_differences(more, Counter())}"
        if stands:
            if expected and state != "COMMITTED":
                yield f"order {order_id} is {order['status']}, its stock is {state or 'not reserved'}"
            if expected and lines[order_id] != expected:
                yield f"order {order_id} reserved something else: {_differences(lines[order_id], expected)}"
        elif state in ("RESERVED", "COMMITTED"):
            yield f"order {order_id} is {order['status']}, its stock is still {state}"
    for order_id in sorted(states.keys() - known):
        yield f"stock is {states[order_id]} for order {order_id}, which doesn't exist"


def _tracked(placed: Rows) -> dict[str, Counter[str]]:
    """By order, its tracked units by SKU; without orders that can't be read."""
    found: dict[str, Counter[str]] = {}
    for row in placed:
        try:
            event = event_from_bytes("OrderPlaced", row["schema_version"], row["data"])
        except ValueError:
            continue
        assert isinstance(event, OrderPlaced)
        units = found[str(row["stream_id"])] = Counter()
        for line in event.lines:
            if not line.untracked:
                units[line.sku] += line.quantity
    return found


def _by_order(rows: Rows, column: str) -> defaultdict[str, Counter[str]]:
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row[column]:
            found[row["order_id"]][row["sku"]] += row[column]
    return found


def _differences(had: Counter[str], expected: Counter[str]) -> str:
    differing = sorted(sku for sku in had.keys() | expected.keys() if had[sku] != expected[sku])
    named = [f"{had[sku]} instead of {expected[sku]} of {sku}" for sku in differing[:3]]
    return ", ".join(named) + (" and more" if len(differing) > 3 else "")
