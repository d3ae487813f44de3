"""What the use cases need."""

from collections.abc import Callable
from typing import Protocol

from customer_svc.domain.customer import Customer


class Customers(Protocol):
    """The customers there are. Each write publishes its event, atomically with it. Raises errors.Unavailable."""

    async def add(self, customer: Customer) -> Customer:
        """Store a new customer, or leave the one that has its id; returns the one that is stored."""
        ...

    async def get(self, customer_id: str) -> Customer | None: ...

    async def update(self, customer_id: str, change: Callable[[Customer], Customer]) -> Customer | None:
        """Replace a customer by `change` of it, with nobody in between. None if there is none; what `change` raises,
        it raises. A change that gives the same customer back writes nothing."""
        ...
