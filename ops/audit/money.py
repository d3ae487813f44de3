"""Money: orders, payments, the ledger and the provider's own record side by side."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import asyncpg

from chassis.money import Money
from ops.audit.report import Report
from ops.audit.stores import Stores

Rows = list[asyncpg.Record]

# One row a transaction: `off` is what it misses balance by, `amount` what it is about.
_BOOKED = """
SELECT payment_id, operation, operation_id, max(amount) AS amount, min(currency) AS currency,
    sum(amount) AS off, count(DISTINCT currency) AS currencies
FROM entries GROUP BY payment_id, operation, operation_id
"""
_BALANCES = "SELECT payment_id, account, sum(amount) AS balance FROM entries GROUP BY payment_id, account"
_HELD = ("AUTHORIZED", "CAPTURING", "CAPTURE_FAILED")


async def audit_money(stores: Stores, orders: Rows, report: Report) -> None:
    payments = await stores.payments.fetch("SELECT * FROM payments")
    booked = await stores.payments.fetch(_BOOKED)
    balances = await stores.payments.fetch(_BALANCES)
    operations = await stores.provider.fetch("SELECT * FROM operations")

    report.add("orders and payments agree", len(orders), _payments_of_orders(orders, payments))
    report.add("payments and the provider agree", len(payments), _provider_faults(payments, operations))
    report.add("the ledger balances", len(booked), _unbalanced(booked))
    report.add("the ledger and payments agree", len(payments), _ledger_of_payments(payments, balances))
    report.add("the ledger and the provider agree", len(booked), _ledger_of_provider(booked, operations))


def _payments_of_orders(orders: Rows, payments: Rows) -> Iterator[str]:
    """A confirmed order is captured for its total; for any other no money is set aside or collected."""
    by_id = {row["payment_id"]: row for row in payments}
    for order in orders:
        order_id = str(order["order_id"])
        payment = by_id.pop(order_id, None)
        status = payment["status"] if payment else None
        if order["status"] == "CONFIRMED":
            if payment is None or status != "CAPTURED":
                yield f"order {order_id} is CONFIRMED, its payment is {status or 'missing'}"
            elif (payment["currency"], payment["captured"]) != (order["currency"], order["total_nanos"]):
                captured = _money(payment["captured"])
                yield f"order {order_id} costs {_money(order['total_nanos'])}, {captured} was captured"
        elif status in ("AUTHORIZING", "AUTHORIZED", "CAPTURING", "CAPTURED", "VOIDING"):
            yield f"order {order_id} is {order['status']}, its payment is {status}"
    for payment_id in by_id:
        yield f"payment {payment_id} belongs to no order"


def _provider_faults(payments: Rows, operations: Rows) -> Iterator[str]:
    """The provider charged and gave back what the payments say, and nothing else."""
    done: defaultdict[str, defaultdict[str, Rows]] = defaultdict(lambda: defaultdict(list))
    for row in operations:
        if row["outcome"] == "APPROVED":
            done[row["payment_id"]][row["kind"]].append(row)
    for payment in payments:
        payment_id, status = payment["payment_id"], payment["status"]
        record = done.pop(payment_id, defaultdict(list))
        for kind in ("AUTHORIZE", "CAPTURE", "VOID"):
            if (times := len(record[kind])) > 1:
                yield f"the provider did {kind} {times} times for payment {payment_id}"
        for kind, column in (("CAPTURE", "captured"), ("REFUND", "refunded")):
            if (total := sum(row["amount"] for row in record[kind])) != payment[column]:
                yield (
                    f"payment {payment_id} is {status} with {_money(payment[column])} {column}, "
                    f"the provider did {kind} of {_money(total)}"
                )
        held = bool(record["AUTHORIZE"]) and not record["CAPTURE"] and not record["VOID"]
        if held and status in ("VOIDED", "DECLINED"):
            yield f"payment {payment_id} is {status}, the provider still holds its amount"
        for row in (*record["AUTHORIZE"], *record["CAPTURE"]):
            if (row["currency"], row["amount"]) != (payment["currency"], payment["amount"]):
                amounts = f"is for {_money(payment['amount'])}, the provider did {row['kind']} {_money(row['amount'])}"
                yield f"payment {payment_id} {amounts}"
    for payment_id, record in done.items():
        yield f"the provider {_did(record)} for payment {payment_id}, which doesn't exist"


def _unbalanced(booked: Rows) -> Iterator[str]:
    for row in booked:
        if row["off"]:
            yield f"the entries of {_name(row)} sum to {_money(row['off'])}"
        if row["currencies"] != 1:
            yield f"the entries of {_name(row)} are in {row['currencies']} currencies"


def _ledger_of_payments(payments: Rows, balances: Rows) -> Iterator[str]:
    """The accounts say for each payment what it says of itself."""
    books: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in balances:
        books[row["payment_id"]][row["account"]] = row["balance"]
    for payment in payments:
        captured, refunded = payment["captured"], payment["refunded"]
        expected = {"PROVIDER": captured - refunded, "SALES": -captured, "REFUNDS": refunded}
        # While it is voided, it may be held or not.
        if payment["status"] != "VOIDING":
            held = payment["amount"] if payment["status"] in _HELD else 0
            expected |= {"HOLDS": held, "BUYERS": -held}
        for account, amount in expected.items():
            if (balance := books[payment["payment_id"]].get(account, 0)) != amount:
                yield (
                    f"payment {payment['payment_id']} is {payment['status']}: the ledger has {_money(balance)} "
                    f"on {account} for it instead of {_money(amount)}"
                )


def _ledger_of_provider(booked: Rows, operations: Rows) -> Iterator[str]:
    """Each operation that the provider did is booked once, with its amount, and nothing else is."""
    record = {row["key"]: row for row in operations if row["outcome"] == "APPROVED"}
    for row in booked:
        did = record.pop(":".join(filter(None, (row["payment_id"], row["operation"], row["operation_id"]))), None)
        if did is None:
            yield f"the ledger has {_name(row)}, which the provider never did"
        elif (did["amount"], did["currency"]) != (row["amount"], row["currency"]):
            yield f"the ledger has {_name(row)} of {_money(row['amount'])}, the provider of {_money(did['amount'])}"
    for key in record:
        yield f"the provider did {key}, which the ledger lacks"


def _name(row: asyncpg.Record) -> str:
    return f"{row['operation']} {row['operation_id']}".rstrip() + f" of payment {row['payment_id']}"


def _did(record: Iterable[str]) -> str:
    return "did " + (", ".join(sorted(record)) or "nothing")


def _money(nanos: int | None) -> str:
    return "nothing" if nanos is None else str(Money("", int(nanos))).rstrip()
