"""Use cases: register, read, change and erase customers."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from polymart.customer.v1.customer_pb2 import PersonalData
from polymart.notification.v1.notification_pb2 import Notification
from polymart.order.v1.order_pb2 import Order

from chassis.clock import Clock
from chassis.errors import AlreadyExists, InvalidArgument, NotFound, Violation, stale_etag
from chassis.ids import NewId
from customer_svc.application.ports import Customers, OtherRecords, Unreadable
from customer_svc.domain.customer import Customer, Details
from customer_svc.domain.verification import Verification


async def register_customer(
    customer_id: str, details: Details, *, customers: Customers, clock: Clock, new_id: NewId
) -> Customer:
    """Add a customer; an empty id is made. Idempotent: the same id with the same details answers what is stored.

    Raises AlreadyExists if the id is taken by a customer with other details, or by one that was erased.
    """
    stored = await customers.add(Customer.register(customer_id or new_id(), details, now=clock.now()))
    if stored.erased:
        raise AlreadyExists(f"customer {customer_id} was erased; their id isn't given again", reason="CUSTOMER_EXISTS")
    if stored.details != details:
        raise AlreadyExists(f"customer {customer_id} exists and differs", reason="CUSTOMER_EXISTS")
    return stored


async def get_customer(customer_id: str, *, customers: Customers) -> Customer:
    """Raises NotFound, also for one that was erased."""
    return present(customer_id, await customers.get(customer_id))


async def update_customer(
    customer_id: str, changes: Mapping[str, Any], *, etag: str, customers: Customers, clock: Clock
) -> Customer:
    """Replace the named details. Raises NotFound, or Aborted if `etag` is given and isn't the current one."""

    def change(customer: Customer, _: Verification | None) -> Customer:
        present(customer_id, customer)
        if etag and etag != customer.etag:
            raise stale_etag("customer", customer_id)
        return customer.changed(changes, now=clock.now())

    return present(customer_id, await customers.update(customer_id, change))


async def erase_customer(customer_id: str, *, customers: Customers, clock: Clock) -> None:
    """Forget a customer; again changes nothing. Raises NotFound for one that never was."""
    if await customers.update(customer_id, lambda customer, _: customer.forgotten(now=clock.now())) is None:
        raise not_found(customer_id)


async def open_personal_data(customer_id: str, sealed: bytes, *, customers: Customers) -> PersonalData:
    """Raises NotFound where the key is gone, InvalidArgument for what the key doesn't open."""
    try:
        found = await customers.unsealed(customer_id, sealed)
    except Unreadable as error:
        fault = Violation("personal_data", "isn't sealed by this service for this customer")
        raise InvalidArgument([fault]) from error
    if found is None:
        raise not_found(customer_id)
    return found


async def export_customer(
    customer_id: str, *, customers: Customers, others: OtherRecords
) -> AsyncIterator[Customer | Order | Notification]:
    """All that is known, the customer first. Raises NotFound, or Unavailable where a part of it can't be had."""
    yield await get_customer(customer_id, customers=customers)
    async for order in others.orders(customer_id):
        yield order
    async for notification in others.notifications(customer_id):
        yield notification


def present(customer_id: str, customer: Customer | None) -> Customer:
    if customer is None:
        raise not_found(customer_id)
    if customer.erased:
        raise NotFound(f"customer {customer_id} was erased", reason="CUSTOMER_ERASED")
    return customer


def not_found(customer_id: str) -> NotFound:
    return NotFound(f"customer {customer_id} doesn't exist", reason="CUSTOMER_NOT_FOUND")
