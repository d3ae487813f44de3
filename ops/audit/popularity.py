"""What sells, as search has it, against the orders."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from polymart.order.v1.events_pb2 import OrderConfirmed

from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.adapters.event_codec import upcast
from search_svc.adapters.elastic_sales import ElasticSales
from search_svc.adapters.mappings import PRODUCTS
from search_svc.adapters.popularity_documents import POPULARITY, SALES
from search_svc.application.ports import IndexMissing
from search_svc.domain.popularity import popularity_of

_INVARIANT = "popularity is what the orders sold"
_PAGE = 1000
# It is computed every few seconds: what differs is given the time to come right.
_PATIENCE = 60.0
_POLL = 0.25

# Orders that count, with what they sold.
_CONFIRMED = """
SELECT stream_id::text AS order_id, schema_version, data FROM events AS e
WHERE type = 'OrderConfirmed' AND occurred_at >= $1
    AND NOT EXISTS (SELECT FROM events WHERE stream_id = e.stream_id AND type = 'OrderCancelled')
"""

Sums = Mapping[str, int]


async def audit_popularity(stores: Stores, report: Report) -> None:
    deadline = monotonic() + _PATIENCE
    while True:
        checked, faults = await _compared(stores)
        if not faults or monotonic() > deadline:
            report.add(_INVARIANT, checked, faults)
            return
        await asyncio.sleep(_POLL)


async def _compared(stores: Stores) -> tuple[int, list[str]]:
    """How many orders were looked at, and what differs from them."""
    try:
        since = await ElasticSales(stores.index).since()
    except IndexMissing:
        return 0, ["the orders that count for popularity are not in the index"]
    if not since:
        return 0, ["popularity was never computed"]
    orders: dict[str, Sums] = {}
    for row in await stores.orders.fetch(_CONFIRMED, datetime.fromtimestamp(since / 1000, UTC)):
        message = OrderConfirmed.FromString(upcast("OrderConfirmed", row["schema_version"], row["data"]))
        units = Counter[str]()
        for line in message.lines:
            units[line.product_id] += line.quantity
        orders[row["order_id"]] = units
    sold = sum((Counter(units) for units in orders.values()), Counter[str]())
    faults = [fault async for fault in _order_faults(stores, orders, since)]
    faults += [fault async for fault in _product_faults(stores, sold)]
    return len(orders), faults


async def _order_faults(stores: Stores, orders: Mapping[str, Sums], since: int) -> AsyncIterator[str]:
    documents = await _documents(stores, SALES, sorted(orders))
    for order_id, units in orders.items():
        document = documents.get(order_id)
        if document is None or "cancelled" in document:
            yield f"order {order_id} is confirmed and doesn't count for popularity"
        elif (counted := {line.get("product_id", ""): line["units"] for line in document["lines"]}) != units:
            yield f"order {order_id} counts for popularity with {counted} instead of {dict(units)}"
    client = stores.index.client
    await client.indices.refresh(index=SALES)
    counts = {"filter": [{"range": {"confirmed": {"gte": since}}}], "must_not": [{"exists": {"field": "cancelled"}}]}
    counted = (await client.count(index=SALES, query={"bool": counts}))["count"]
    if counted > len(orders):
        yield f"{counted} orders count for popularity, {len(orders)} were confirmed"


async def _product_faults(stores: Stores, sold: Sums) -> AsyncIterator[str]:
    keys = sorted({*sold, *await ElasticSales(stores.index).popular()})
    records = await _documents(stores, POPULARITY, keys)
    products = await _documents(stores, PRODUCTS, keys)
    for key in keys:
        wanted, record = popularity_of(sold.get(key, 0)), records.get(key, {})
        if record.get("value", 0) != wanted:
            yield f"product {key}: popularity is recorded as {record.get('value', 0)} instead of {wanted}"
        document = products.get(key)
        if document is None or document["deleted"]:
            continue
        value, version = document.get("popularity"), document["rest"].get("popularity_version")
        had = {"popularity": value, "rest.popularity_version": version}
        expected = {"popularity": record.get("value", 0), "rest.popularity_version": record.get("version", 0)}
        for name, right in expected.items():
            if had[name] != right:
                yield f"product {key}: {name} is {had[name]} instead of {right} in the index"


async def _documents(stores: Stores, alias: str, keys: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(keys), _PAGE):
        answer = await stores.index.client.mget(index=alias, ids=keys[start : start + _PAGE], realtime=True)
        found |= {item["_id"]: item["_source"] for item in answer["docs"] if item.get("found")}
    return found
