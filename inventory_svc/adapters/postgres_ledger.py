"""What an operator asks of the tables that `postgres_stock` writes."""

from datetime import UTC, datetime

from chassis.postgres import Postgres
from inventory_svc.application.ports import Entry, Reservation
from inventory_svc.domain.allocation import Allocation
from inventory_svc.domain.stock import Kind, Movement

_ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)
_NEVER = datetime(1, 1, 1, tzinfo=UTC)

# Open orders are few beside those that were ever placed: their index is read, each one's lines by their key.
_OPEN = """
SELECT h.order_id, h.created_at, array_agg((r.sku, r.location_id, r.quantity) ORDER BY r.sku, r.location_id) AS lines
FROM (
    SELECT order_id, created_at FROM holds
    WHERE state = 'RESERVED' AND created_at < $1 AND (created_at, order_id) > ($2, $3)
        AND ($4 = '' OR EXISTS (SELECT FROM reservations o WHERE o.order_id = holds.order_id AND o.sku = $4))
    ORDER BY created_at, order_id LIMIT $5
) h JOIN reservations r USING (order_id)
GROUP BY h.order_id, h.created_at ORDER BY h.created_at, h.order_id
"""
_MOVEMENTS = """
SELECT id, at, sku, location_id, kind, on_hand_delta, reserved_delta, order_id, operation_id, reason FROM movements
WHERE sku = $1 AND id < $2 AND ($3 = '' OR location_id = $3) ORDER BY id DESC LIMIT $4
"""
_PAST_ALL_IDS = 2**63 - 1


class PostgresLedger:
    """`Ledger` over a database."""

    def __init__(self, db: Postgres):
        self._db = db

    async def open_reservations(
        self, *, sku: str, before: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Reservation]:
        rows = await self._db.fetch(_OPEN, before or _ALWAYS, *(after or (_NEVER, "")), sku, limit)
        return [
            Reservation(row["order_id"], tuple(Allocation(*line) for line in row["lines"]), row["created_at"])
            for row in rows
        ]

    async def movements(self, sku: str, *, location: str, below: int | None, limit: int) -> list[Entry]:
        rows = await self._db.fetch(_MOVEMENTS, sku, _PAST_ALL_IDS if below is None else below, location, limit)
        return [
            Entry(id, Movement(sku, place, Kind(kind), on_hand, reserved, order_id, operation_id, reason), at)
            for id, at, sku, place, kind, on_hand, reserved, order_id, operation_id, reason in rows
        ]
