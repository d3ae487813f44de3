"""Shipments in PostgreSQL: where to find them; what is in them is in their orders' events."""

from collections.abc import Iterable, Sequence

from chassis.errors import NotFound
from chassis.postgres import Postgres, Transaction
from order_svc.domain.order import Order

_ORDER_OF = "SELECT order_id FROM shipments WHERE shipment_id = $1"
_PROJECT = """
INSERT INTO shipments (shipment_id, order_id, ship_time, deliver_time)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[])
ON CONFLICT (shipment_id) DO UPDATE SET deliver_time = excluded.deliver_time
"""


class PostgresShipments:
    """The port ShipmentIndex."""

    def __init__(self, db: Postgres):
        self._db = db

    async def order_of(self, shipment_id: str) -> str:
        order_id = await self._db.fetchval(_ORDER_OF, shipment_id)
        if order_id is None:
            raise NotFound(f"no shipment {shipment_id}")
        return str(order_id)

    async def page(
        self, *, order_id: str | None, under_way: bool, before: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        conditions, values = ["true"], list[object]()
        for condition, value in (("order_id =", order_id), ("shipment_id <", before)):
            if value is not None:
                values.append(value)
                conditions.append(f"{condition} ${len(values)}")
        if under_way:
            conditions.append("deliver_time IS NULL")
        values.append(limit)
        query = (
            f"SELECT order_id, shipment_id FROM shipments WHERE {' AND '.join(conditions)} "  # noqa: S608
            f"ORDER BY shipment_id DESC LIMIT ${len(values)}"
        )
        return [(str(order), str(shipment)) for order, shipment in await self._db.fetch(query, *values)]


async def project_shipments(tx: Transaction, orders: Iterable[Order]) -> None:
    """Write the rows of these orders' shipments."""
    rows = [
        (shipment.shipment_id, order.order_id, shipment.ship_time, shipment.deliver_time)
        for order in orders
        for shipment in order.shipments
    ]
    if rows:
        await tx.execute(_PROJECT, *([row[column] for row in rows] for column in range(4)))
