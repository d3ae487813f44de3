"""Orders, stock and money: each service's books, and the books of all of them side by side."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import asyncpg

from inventory_svc.domain.stock import Availability
from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.adapters.event_codec import event_from_bytes
from order_svc.adapters.read_model import read_model_faults
from order_svc.domain.order import OrderPlaced

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
_RESERVED = "SELECT order_id, sku, sum(quantity)::bigint AS quantity FROM reservations GROUP BY order_id, sku"


async def audit_commerce(stores: Stores, report: Report) -> None:
    orders = await stores.orders.fetch("SELECT * FROM orders ORDER BY order_id")
    placed = await stores.orders.fetch("SELECT stream_id, schema_version, data FROM events WHERE type = 'OrderPlaced'")
    holds = await stores.inventory.fetch("SELECT order_id, state FROM holds")
    reserved = await stores.inventory.fetch(_RESERVED)
    sold = await stores.inventory.fetch(_SOLD)
    stock = await stores.inventory.fetch(_STOCK)
    told = await stores.inventory.fetch(_TOLD)
    payments = await stores.payments.fetch("SELECT * FROM payments")
    operations = await stores.provider.fetch("SELECT * FROM operations")

    report.add("orders settle", len(orders), _unsettled(orders))
    report.add("the read model is the fold of the events", len(orders), await read_model_faults(stores.orders))
    report.add("stock is the sum of its movements", len(stock), _stock_faults(stock))
    report.add("availability is what the stock means", len(told), _availability_faults(told))
    report.add("orders and stock agree", len(orders), _stock_of_orders(orders, placed, holds, reserved, sold))
    report.add("orders and payments agree", len(orders), _payments_of_orders(orders, payments))
    report.add("payments and the provider agree", len(payments), _provider_faults(payments, operations))


def _unsettled(orders: Rows) -> Iterator[str]:
    for order in orders:
        if not order["settled"]:
            yield f"order {order['order_id']} is {order['status']} and not settled"


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


def _stock_of_orders(orders: Rows, placed: Rows, holds: Rows, reserved: Rows, sold: Rows) -> Iterator[str]:
    """A confirmed order took exactly its tracked lines out of the warehouse, any other nothing; what was returned of
    it is no more than it took."""
    wanted = {str(row["stream_id"]): _tracked(row) for row in placed}
    taken = _by_order(sold, "units")
    returned = _by_order(sold, "returned")
    lines = _by_order(reserved, "quantity")
    states = {row["order_id"]: row["state"] for row in holds}
    known = set()
    for order in orders:
        order_id = str(order["order_id"])
        known.add(order_id)
        state = states.get(order_id)
        expected = wanted.get(order_id, Counter()) if order["status"] == "CONFIRMED" else Counter()
        # What was returned before an order was released isn't put back by the release.
        left = taken[order_id] if order["status"] == "CONFIRMED" else taken[order_id] - returned[order_id]
        if left != expected:
            yield f"order {order_id} is {order['status']}: {_differences(left, expected)} left the warehouse"
        if more := returned[order_id] - taken[order_id]:
            yield f"order {order_id} returned more than it took: {_differences(more, Counter())}"
        if order["status"] == "CONFIRMED":
            if expected and state != "COMMITTED":
                yield f"order {order_id} is CONFIRMED, its stock is {state or 'not reserved'}"
            if expected and lines[order_id] != expected:
                yield f"order {order_id} reserved something else: {_differences(lines[order_id], expected)}"
        elif state in ("RESERVED", "COMMITTED"):
            yield f"order {order_id} is {order['status']}, its stock is still {state}"
    for order_id in sorted(states.keys() - known):
        yield f"stock is {states[order_id]} for order {order_id}, which doesn't exist"


def _tracked(row: asyncpg.Record) -> Counter[str]:
    event = event_from_bytes("OrderPlaced", row["schema_version"], row["data"])
    assert isinstance(event, OrderPlaced)
    units: Counter[str] = Counter()
    for line in event.lines:
        if not line.untracked:
            units[line.sku] += line.quantity
    return units


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


def _payments_of_orders(orders: Rows, payments: Rows) -> Iterator[str]:
    """A confirmed order is captured for its total; for any other no money is set aside or collected."""
    by_id = {row["payment_id"]: row for row in payments}
    for order in orders:
        order_id = str(order["order_id"])
        payment = by_id.pop(order_id, None)
        status = payment["status"] if payment else None
        if order["status"] == "CONFIRMED":
            if payment is None or status != "CAPTURED":
                yield f"order {order_id} is CONFIRMED, its payment is {status or 'missing'}"
            elif (payment["currency"], payment["amount"]) != (order["currency"], order["total_nanos"]):
                yield f"order {order_id} costs {_money(order['total_nanos'])}, {_money(payment['amount'])} was captured"
        elif status in ("AUTHORIZING", "AUTHORIZED", "CAPTURING", "CAPTURED", "VOIDING"):
            yield f"order {order_id} is {order['status']}, its payment is {status}"
    for payment_id in by_id:
        yield f"payment {payment_id} belongs to no order"


def _provider_faults(payments: Rows, operations: Rows) -> Iterator[str]:
    """The provider charged what was captured, once, and nothing else."""
    done: defaultdict[str, defaultdict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in operations:
        if row["outcome"] == "APPROVED":
            done[row["payment_id"]][row["kind"]].append(row)
    for payment in payments:
        payment_id, status = payment["payment_id"], payment["status"]
        record = done.pop(payment_id, defaultdict(list))
        for kind, rows in record.items():
            if len(rows) > 1:
                yield f"the provider did {kind} {len(rows)} times for payment {payment_id}"
        charged, voided = record["CAPTURE"], record["VOID"]
        held = bool(record["AUTHORIZE"]) and not charged and not voided
        if (status == "CAPTURED") != bool(charged and not voided):
            yield f"payment {payment_id} is {status}, the provider {_did(record)}"
        elif held and status in ("VOIDED", "DECLINED"):
            yield f"payment {payment_id} is {status}, the provider still holds its amount"
        for row in (*record["AUTHORIZE"], *charged):
            if (row["currency"], row["amount"]) != (payment["currency"], payment["amount"]):
                amounts = f"is for {_money(payment['amount'])}, the provider did {row['kind']} {_money(row['amount'])}"
                yield f"payment {payment_id} {amounts}"
    for payment_id, record in done.items():
        yield f"the provider {_did(record)} for payment {payment_id}, which doesn't exist"


def _did(record: Iterable[str]) -> str:
    return "did " + (", ".join(sorted(record)) or "nothing")


def _money(nanos: int | None) -> str:
    return "nothing" if nanos is None else f"{nanos / 1e9:.2f}"
