"""Customers in PostgreSQL, with their keys, their events in the outbox beside them."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from asyncpg import Record
from polymart.customer.v1.customer_pb2 import PersonalData
from polymart.customer.v1.events_pb2 import (
    CustomerErased,
    CustomerRegistered,
    CustomerUpdated,
    EmailVerificationRequested,
)

from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from customer_svc.adapters import sealing
from customer_svc.application.ports import Change
from customer_svc.domain.address import Address
from customer_svc.domain.customer import Customer, Details, Muted
from customer_svc.domain.verification import Verification
from customer_svc.protos import to_proto

Event: TypeAlias = CustomerRegistered | CustomerUpdated | CustomerErased | EmailVerificationRequested

_COLUMNS = (
    "customer_id, display_name, email, country, addresses, muted, email_verified, erased, "
    "version, create_time, update_time"
)
_INSERT = f"""
INSERT INTO customers ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT DO NOTHING RETURNING customer_id
"""  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM customers WHERE customer_id = $1"  # noqa: S608
_UPDATE = """
UPDATE customers SET display_name = $2, email = $3, country = $4, addresses = $5, muted = $6, email_verified = $7,
    erased = $8, version = $9, create_time = $10, update_time = $11
WHERE customer_id = $1
"""
_ADD_KEY = "INSERT INTO customer_keys (customer_id, key) VALUES ($1, $2)"
_KEY = "SELECT key FROM customer_keys WHERE customer_id = $1"
_DESTROY_KEY = "DELETE FROM customer_keys WHERE customer_id = $1"
_VERIFICATION = "SELECT verification_id, digest, request_time FROM email_verifications WHERE customer_id = $1"
_SET_VERIFICATION = """
INSERT INTO email_verifications (customer_id, verification_id, digest, request_time) VALUES ($1, $2, $3, $4)
ON CONFLICT (customer_id) DO UPDATE
SET verification_id = EXCLUDED.verification_id, digest = EXCLUDED.digest, request_time = EXCLUDED.request_time
"""
_END_VERIFICATION = "DELETE FROM email_verifications WHERE customer_id = $1"


class PostgresCustomers:
    """Customers (application.ports) over `customers`, `customer_keys` and `email_verifications`."""

    def __init__(self, db: Postgres, outbox: PostgresOutbox):
        self._db = db
        self._outbox = outbox

    async def add(self, customer: Customer) -> Customer:
        async with self._db.transaction() as tx:
            if await tx.fetchval(_INSERT, *_row(customer)) is None:
                return _customer(await tx.fetchrow(_GET, customer.customer_id))
            key = sealing.new_key()
            await tx.execute(_ADD_KEY, customer.customer_id, key)
            await self._publish(tx, CustomerRegistered(personal_data=_sealed(key, customer), **_facts(customer)))
        return customer

    async def get(self, customer_id: str) -> Customer | None:
        row = await self._db.fetchrow(_GET, customer_id)
        return _customer(row) if row else None

    async def update(self, customer_id: str, change: Change) -> Customer | None:
        async with self._db.transaction() as tx:
            if (before := await self._locked(tx, customer_id)) is None:
                return None
            after = change(before, await self._verification(tx, customer_id))
            if after == before:
                return after
            await tx.execute(_UPDATE, *_row(after))
            if after.details.email != before.details.email:
                await tx.execute(_END_VERIFICATION, customer_id)
            if after.erased:
                await tx.execute(_END_VERIFICATION, customer_id)
                await tx.execute(_DESTROY_KEY, customer_id)
                await self._publish(tx, CustomerErased(customer_id=customer_id, version=after.version))
            else:
                key = await tx.fetchval(_KEY, customer_id)
                await self._publish(tx, CustomerUpdated(personal_data=_sealed(key, after), **_facts(after)))
        return after

    async def send_code(
        self, customer_id: str, begin: Callable[[Customer, Verification | None], tuple[Verification, str]]
    ) -> bool:
        async with self._db.transaction() as tx:
            if (customer := await self._locked(tx, customer_id)) is None:
                return False
            begun, code = begin(customer, await self._verification(tx, customer_id))
            await tx.execute(_SET_VERIFICATION, customer_id, begun.verification_id, begun.digest, begun.request_time)
            key = await tx.fetchval(_KEY, customer_id)
            event = EmailVerificationRequested(
                customer_id=customer_id,
                verification_id=begun.verification_id,
                personal_data=sealing.seal(key, PersonalData(verification_code=code)),
            )
            event.expire_time.FromDatetime(begun.expire_time)
            await self._publish(tx, event)
        return True

    async def unsealed(self, customer_id: str, sealed: bytes) -> PersonalData | None:
        key = await self._db.fetchval(_KEY, customer_id)
        return sealing.unseal(key, sealed) if key else None

    async def _locked(self, tx: Transaction, customer_id: str) -> Customer | None:
        row = await tx.fetchrow(f"{_GET} FOR UPDATE", customer_id)
        return _customer(row) if row else None

    async def _verification(self, tx: Transaction, customer_id: str) -> Verification | None:
        row = await tx.fetchrow(_VERIFICATION, customer_id)
        return Verification(str(row["verification_id"]), row["digest"], row["request_time"]) if row else None

    async def _publish(self, tx: Transaction, event: Event) -> None:
        await self._outbox.add(tx, [Envelope.new(event, aggregate_id=event.customer_id, source="customer_svc")])


def _facts(customer: Customer) -> dict[str, Any]:
    """What events say of a customer in the open."""
    return {
        "customer_id": customer.customer_id,
        "version": customer.version,
        "has_email": bool(customer.details.email),
    }


def _sealed(key: bytes, customer: Customer) -> bytes:
    return sealing.seal(key, PersonalData(customer=to_proto(customer)))


def _row(customer: Customer) -> tuple[Any, ...]:
    details = customer.details
    return (
        customer.customer_id,
        details.display_name,
        details.email,
        details.country,
        json.dumps([asdict(address) for address in details.addresses]),
        json.dumps(sorted([muted.channel, muted.kind] for muted in details.muted)),
        customer.email_verified,
        customer.erased,
        customer.version,
        customer.create_time,
        customer.update_time,
    )


def _customer(row: Record | None) -> Customer:
    assert row is not None
    details = Details(
        row["display_name"],
        row["email"],
        row["country"],
        tuple(Address(**{**fields, "lines": tuple(fields["lines"])}) for fields in json.loads(row["addresses"])),
        frozenset(Muted(*pair) for pair in json.loads(row["muted"])),
    )
    return Customer(
        row["customer_id"],
        details,
        row["version"],
        row["create_time"],
        row["update_time"],
        email_verified=row["email_verified"],
        erased=row["erased"],
    )
