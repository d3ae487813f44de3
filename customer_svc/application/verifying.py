"""Use cases: show that an e-mail address is its customer's."""

from collections.abc import Callable
from math import ceil

from chassis.clock import Clock
from chassis.errors import FailedPrecondition, ResourceExhausted
from chassis.ids import NewId
from customer_svc.application.customers import not_found, present
from customer_svc.application.ports import Customers
from customer_svc.domain.customer import Customer
from customer_svc.domain.verification import Verification


async def request_verification(
    customer_id: str, *, customers: Customers, clock: Clock, new_id: NewId, new_code: Callable[[], str]
) -> None:
    """Have a new code sent to the customer's address; codes sent before are worthless then.

    Raises NotFound, FailedPrecondition without an address or if it is verified, ResourceExhausted too soon after
    the last.
    """

    def begin(customer: Customer, last: Verification | None) -> tuple[Verification, str]:
        present(customer_id, customer)
        if not customer.details.email:
            raise FailedPrecondition(f"customer {customer_id} has no e-mail address", reason="EMAIL_MISSING")
        if customer.email_verified:
            raise FailedPrecondition(f"customer {customer_id}'s address is verified", reason="EMAIL_VERIFIED")
        now = clock.now()
        if last and (wait := last.wait(now=now)):
            again = f"a code was just sent; another one can be in {ceil(wait.total_seconds())} s"
            raise ResourceExhausted(again, reason="CODE_JUST_SENT")
        code = new_code()
        return Verification.of(new_id(), code, now=now), code

    if not await customers.send_code(customer_id, begin):
        raise not_found(customer_id)


async def verify_email(customer_id: str, code: str, *, customers: Customers, clock: Clock) -> Customer:
    """Take a code that came back; the same one again answers the same. Raises NotFound, or FailedPrecondition."""

    def prove(customer: Customer, verification: Verification | None) -> Customer:
        present(customer_id, customer)
        if verification is None or not verification.proven_by(code, now=clock.now()):
            refusal = "the code isn't the last one that was sent to this address, or it is too old"
            raise FailedPrecondition(refusal, reason="CODE_REFUSED")
        return customer.verified(now=clock.now())

    return present(customer_id, await customers.update(customer_id, prove))
