"""What an operator asks of the tables that `postgres_stock` writes."""

from datetime import UTC, datetime

from chassis.postgres import Postgres
from inventory_svc.application.ports import Entry, Reservation
from inventory_svc.domain.allocation import Allocation
from inventory_svc.domain.stock import Kind, Movement

_ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)
_NEVER = datetime(1, 1, 1, tzinfo=UTC)

# By age from the index open_holds, or those of one SKU from open_holds_by_sku; each one's lines by their key.
_LINES = """
SELECT h.order_id, h.created_at, array_agg((r.sku, r.location_id, r.quantity) ORDER BY r.sku, r.location_id) AS lines
FROM ({}) h JOIN reservations r USING (order_id)
GROUP BY h.order_id, h.created_at ORDER BY h.created_at, h.order_id
"""
OPEN = _LINES.format("""
    SELECT order_id, created_at FROM holds
    WHERE state = 'RESERVED' AND created_at < $1 AND (created_at, order_id) > ($2, $3)
    ORDER BY created_at, order_id LIMIT $4
""")
OPEN_OF_SKU = _LINES.format("""
    SELECT order_id, created_at FROM holds
    WHERE state = 'RESERVED' AND created_at < $1 AND (created_at, order_id) > ($2, $3) AND skus @> ARRAY[$5::text]
    ORDER BY created_at, order_id LIMIT $4
""")
_ENTRIES = """
SELECT id, at, sku, location_id, kind, on_hand_delta, reserved_delta, order_id, operation_id, reason FROM movements
"""
# From the indexes movements_of_a_sku and movements_at_a_location.
MOVEMENTS = f"{_ENTRIES} WHERE sku = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
MOVEMENTS_AT = f"{_ENTRIES} WHERE sku = $1 AND location_id = $4 AND id < $2 ORDER BY id DESC LIMIT $3"
_PAST_ALL_IDS = 2**63 - 1


class PostgresLedger:
    """`Ledger` over a database."""

    def __init__(self, db: Postgres):
        self._db = db

    async def open_reservations(
        self, *, sku: str, before: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[Reservation]:
        asked = (before or _ALWAYS, *(after or (_NEVER, "")), limit)
        rows = await (self._db.fetch(OPEN_OF_SKU, *asked, sku) if sku else self._db.fetch(OPEN, *asked))
        return [
            Reservation(row["order_id"], tuple(Allocation(*line) for line in row["lines"]), row["created_at"])
            for row in rows
        ]

    async def movements(self, sku: str, *, location: str, below: int | None, limit: int) -> list[Entry]:
        asked = (sku, _PAST_ALL_IDS if below is None else below, limit)
        rows = await (self._db.fetch(MOVEMENTS_AT, *asked, location) if location else self._db.fetch(MOVEMENTS, *asked))
        return [
            Entry(id, Movement(sku, place, Kind(kind), on_hand, reserved, order_id, operation_id, reason), at)
            for id, at, sku, place, kind, on_hand, reserved, order_id, operation_id, reason in rows
        ]
