"""What the use cases need. Every port raises errors.Unavailable where what is behind it can't be reached."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from polymart.customer.v1.customer_pb2 import PersonalData
from polymart.notification.v1.notification_pb2 import Notification
from polymart.order.v1.order_pb2 import Order

from customer_svc.domain.customer import Customer
from customer_svc.domain.verification import Verification

Change = Callable[[Customer, Verification | None], Customer]


class Unreadable(Exception):
    """It wasn't sealed with this customer's key, or was altered."""


class Customers(Protocol):
    """The customers there are, and were. Each write publishes its event, atomically with it.

    What personal data an event has is sealed under its customer's key, made with the customer and destroyed with them.
    """

    async def add(self, customer: Customer) -> Customer:
        """Store a new customer, or leave the one that has its id; returns the one that is stored."""
        ...

    async def get(self, customer_id: str) -> Customer | None: ...

    async def update(self, customer_id: str, change: Change) -> Customer | None:
        """Replace a customer by `change` of it and of the verification that was begun last, with nobody in between.

        None if there is none; what `change` raises, it raises. A change that gives the same customer back writes
        nothing. One that erases destroys the key; one of the e-mail address ends a verification.
        """
        ...

    async def send_code(
        self, customer_id: str, begin: Callable[[Customer, Verification | None], tuple[Verification, str]]
    ) -> bool:
        """Begin a verification in place of the last one, and announce its code. False if there is no such customer."""
        ...

    async def unsealed(self, customer_id: str, sealed: bytes) -> PersonalData | None:
        """What an event carries; None if there is no such customer, or none any more. Raises Unreadable."""
        ...


class OtherRecords(Protocol):
    """What other services know of a customer.

    Raises FailedPrecondition where this service isn't told whom to ask.
    """

    def orders(self, customer_id: str) -> AsyncIterator[Order]: ...
    def notifications(self, customer_id: str) -> AsyncIterator[Notification]: ...
