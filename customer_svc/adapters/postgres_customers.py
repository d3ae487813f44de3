"""Customers in PostgreSQL, their events in the outbox beside them."""

from collections.abc import Callable
from typing import Any

from asyncpg import Record
from polymart.customer.v1.events_pb2 import CustomerRegistered, CustomerUpdated

from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from customer_svc.domain.customer import Customer, Details
from customer_svc.protos import to_proto

_COLUMNS = "customer_id, display_name, email, country, version, create_time, update_time"
_INSERT = f"""
INSERT INTO customers ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING RETURNING customer_id
"""  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM customers WHERE customer_id = $1"  # noqa: S608
_UPDATE = """
UPDATE customers SET display_name = $2, email = $3, country = $4, version = $5, create_time = $6, update_time = $7
WHERE customer_id = $1
"""


class PostgresCustomers:
    """Customers (application.ports) over the table `customers`."""

    def __init__(self, db: Postgres, outbox: PostgresOutbox):
        self._db = db
        self._outbox = outbox

    async def add(self, customer: Customer) -> Customer:
        async with self._db.transaction() as tx:
            if await tx.fetchval(_INSERT, *_row(customer)) is None:
                return _customer(await tx.fetchrow(_GET, customer.customer_id))
            await self._publish(tx, CustomerRegistered(customer=to_proto(customer)))
        return customer

    async def get(self, customer_id: str) -> Customer | None:
        row = await self._db.fetchrow(_GET, customer_id)
        return _customer(row) if row else None

    async def update(self, customer_id: str, change: Callable[[Customer], Customer]) -> Customer | None:
        async with self._db.transaction() as tx:
            if (row := await tx.fetchrow(f"{_GET} FOR UPDATE", customer_id)) is None:
                return None
            before = _customer(row)
            if (after := change(before)) != before:
                await tx.execute(_UPDATE, *_row(after))
                await self._publish(tx, CustomerUpdated(customer=to_proto(after)))
        return after

    async def _publish(self, tx: Transaction, event: CustomerRegistered | CustomerUpdated) -> None:
        envelope = Envelope.new(event, aggregate_id=event.customer.customer_id, source="customer_svc")
        await self._outbox.add(tx, [envelope])


def _row(customer: Customer) -> tuple[Any, ...]:
    details = customer.details
    return (
        customer.customer_id,
        details.display_name,
        details.email,
        details.country,
        customer.version,
        customer.create_time,
        customer.update_time,
    )


def _customer(row: Record | None) -> Customer:
    assert row is not None
    customer_id, display_name, email, country, version, create_time, update_time = row
    return Customer(customer_id, Details(display_name, email, country), version, create_time, update_time)
