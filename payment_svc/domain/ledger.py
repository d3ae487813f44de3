"""The shop's books of what its provider did: each operation is one transaction, whose entries sum to zero.

    operation   HOLDS   BUYERS   PROVIDER   SALES   REFUNDS
    ─────────   ─────   ──────   ────────   ─────   ───────
    AUTHORIZE     +       −
    VOID          −       +
    CAPTURE       −       +         +         −
    REFUND                          −                  +

HOLDS is what the provider has set aside for the shop, BUYERS its other side. PROVIDER is what the provider collected
and owes the shop, less what it gave back; SALES and REFUNDS are why. What was refused or never asked isn't booked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from chassis.money import Money
from payment_svc.domain.payments import Name, Operation, Payment


class Account(StrEnum):
    HOLDS = "HOLDS"
    BUYERS = "BUYERS"
    PROVIDER = "PROVIDER"
    SALES = "SALES"
    REFUNDS = "REFUNDS"


_BOOKED: Mapping[Operation, Mapping[Account, int]] = {
    Operation.AUTHORIZE: {Account.HOLDS: 1, Account.BUYERS: -1},
    Operation.VOID: {Account.HOLDS: -1, Account.BUYERS: 1},
    Operation.CAPTURE: {Account.HOLDS: -1, Account.BUYERS: 1, Account.PROVIDER: 1, Account.SALES: -1},
    Operation.REFUND: {Account.PROVIDER: -1, Account.REFUNDS: 1},
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a transaction, which is known by its payment and the operation's name. Debits are positive."""

    payment_id: str
    name: Name
    account: Account
    amount: Money


def entries_of(payment: Payment, name: Name) -> list[Entry]:
    """The transaction of an operation that the provider did."""
    amount = payment.attempts[name].amount
    booked = _BOOKED[name[0]]
    return [Entry(payment.payment_id, name, account, payment.money(sign * amount)) for account, sign in booked.items()]
