"""What an operator asks is read from the indexes made for it, also where there is much beside it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from inventory_svc.adapters.postgres_ledger import MOVEMENTS, MOVEMENTS_AT, OPEN, OPEN_OF_SKU

LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
PAST_ALL = 2**62

MANY = (
    "TRUNCATE holds, reservations, movements",
    """INSERT INTO holds (order_id, state, skus)
       SELECT 'o' || n, CASE WHEN n % 2 = 0 THEN 'RESERVED' ELSE 'COMMITTED' END, ARRAY['S' || n % 1000]
       FROM generate_series(1, 40000) n""",
    """INSERT INTO reservations (order_id, sku, location_id, quantity)
       SELECT order_id, skus[1], 'main', 1 FROM holds""",
    """INSERT INTO movements (sku, location_id, kind, on_hand_delta, reserved_delta, operation_id, reason)
       SELECT 'S' || n % 400, 'l' || n / 400 % 10, 'ADJUST', 1, 0, n::text, 'r' FROM generate_series(1, 40000) n""",
    "ANALYZE holds, reservations, movements",
)


@pytest.mark.parametrize(
    ("query", "arguments", "index", "most"),
    [
        (OPEN, (LATER, LONG_AGO, "", 10), "open_holds", 60),
        (OPEN_OF_SKU, (LATER, LONG_AGO, "", 10, "S2"), "open_holds_by_sku", 60),
        (MOVEMENTS, ("S1", PAST_ALL, 10), "movements_of_a_sku", 100),
        (MOVEMENTS_AT, ("S1", PAST_ALL, 10, "l1"), "movements_at_a_location", 10),
    ],
)
async def test_a_page_reads_little_more_than_it_has(
    db: asyncpg.Connection, query: str, arguments: tuple[Any, ...], index: str, most: int
) -> None:
    for statement in MANY:
        await db.execute(statement)
    told = await db.fetchval(f"EXPLAIN (ANALYZE, FORMAT json) {query}", *arguments)
    nodes = list(_nodes(json.loads(told)[0]["Plan"]))
    assert index in {node.get("Index Name") for node in nodes}
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert max(node["Actual Rows"] for node in nodes) <= most


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
