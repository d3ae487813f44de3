"""Use cases: register, read and change customers."""

from collections.abc import Mapping

from chassis.clock import Clock
from chassis.errors import AlreadyExists, NotFound, stale_etag
from chassis.ids import NewId
from customer_svc.application.ports import Customers
from customer_svc.domain.customer import Customer, Details


async def register_customer(
    customer_id: str, details: Details, *, customers: Customers, clock: Clock, new_id: NewId
) -> Customer:
    """Add a customer; an empty id is made. Idempotent: the same id with the same details answers what is stored.

    Raises AlreadyExists if the id is taken by a customer with other details.
    """
    stored = await customers.add(Customer.register(customer_id or new_id(), details, now=clock.now()))
    if stored.details != details:
        raise AlreadyExists(f"customer {customer_id} exists and differs", reason="CUSTOMER_EXISTS")
    return stored


async def get_customer(customer_id: str, *, customers: Customers) -> Customer:
    """Raises NotFound."""
    if (customer := await customers.get(customer_id)) is None:
        raise _not_found(customer_id)
    return customer


async def update_customer(
    customer_id: str, changes: Mapping[str, str], *, etag: str, customers: Customers, clock: Clock
) -> Customer:
    """Replace the named details. Raises NotFound, or Aborted if `etag` is given and isn't the current one."""

    def change(customer: Customer) -> Customer:
        if etag and etag != customer.etag:
            raise stale_etag("customer", customer_id)
        return customer.changed(changes, now=clock.now())

    if (customer := await customers.update(customer_id, change)) is None:
        raise _not_found(customer_id)
    return customer


def _not_found(customer_id: str) -> NotFound:
    return NotFound(f"customer {customer_id} doesn't exist", reason="CUSTOMER_NOT_FOUND")
