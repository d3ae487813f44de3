"""Money: orders, payments, the ledger and the provider's own record side by side."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import asyncpg

from chassis.money import Money
from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.domain.saga import STANDING

Rows = list[asyncpg.Record]

# One row a transaction: `off` is what it misses balance by, `amount` what it is about.
_BOOKED = """
SELECT payment_id, operation, operation_id, max(amount) AS amount, min(currency) AS currency,
    sum(amount) AS off, count(DISTINCT currency) AS currencies
FROM entries GROUP BY payment_id, operation, operation_id
"""
_BALANCES = "SELECT payment_id, account, sum(amount) AS balance FROM entries GROUP BY payment_id, account"
_HELD = ("AUTHORIZED", "CAPTURING", "CAPTURE_FAILED")


async def audit_money(stores: Stores, orders: Rows, charged: Collection[str], report: Report) -> None:
    """`charged` are the orders that have asked for their payment."""
    payments = await stores.payments.fetch("SELECT * FROM payments")
    attempts = await stores.payments.fetch("SELECT payment_id, operation, operation_id, state FROM attempts")
    booked = await stores.payments.fetch(_BOOKED)
    balances = await stores.payments.fetch(_BALANCES)
    operations = await stores.provider.fetch("SELECT * FROM operations")

    report.add("orders and payments agree", len(orders), _payments_of_orders(orders, charged, payments))
    report.add("payments and the provider agree", len(payments), _provider_faults(payments, operations))
    report.add("payments and the provider agree", 0, _attempt_faults(attempts, operations))
    report.add("the ledger balances", len(booked), _unbalanced(booked))
    report.add("the ledger and payments agree", len(payments), _ledger_of_payments(payments, balances))
    report.add("the ledger and the provider agree", len(booked), _ledger_of_provider(booked, operations))


def _payments_of_orders(orders: Rows, charged: Collection[str], payments: Rows) -> Iterator[str]:
    """An order that stands is captured for its total, and what it says was given back of that was; for any other no
    money is set aside or collected."""
    by_id = {row["payment_id"]: row for row in payments}
    for order in orders:
        order_id = str(order["order_id"])
        payment = by_id.pop(order_id, None)
        status = payment["status"] if payment else None
        if order["status"] in STANDING:
            if payment is None or status != "CAPTURED":
                yield f"order {order_id} is {order['status']}, its payment is {status or 'missing'}"
            elif (payment["currency"], payment["captured"]) != (order["currency"], order["total_nanos"]):
                total = _money(order["currency"], order["total_nanos"])
                yield f"order {order_id} costs {total}, {_amount(payment, 'captured')} was captured"
            elif payment["refunded"] != order["refunded_nanos"]:
                back = _money(order["currency"], order["refunded_nanos"])
                yield f"order {order_id} had {back} refunded, {_amount(payment, 'refunded')} was by its payment"
        elif payment is None and order_id in charged:
            yield f"order {order_id} asked for its payment, which is missing"
        elif status not in (None, "DECLINED", "VOIDED"):
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
                    f"payment {payment_id} is {status} with {_amount(payment, column)} {column}, "
                    f"the provider did {kind} of {_money(payment['currency'], total)}"
                )
        held = bool(record["AUTHORIZE"]) and not record["CAPTURE"] and not record["VOID"]
        if held and status in ("VOIDED", "DECLINED"):
            yield f"payment {payment_id} is {status}, the provider still holds its amount"
        for row in (*record["AUTHORIZE"], *record["CAPTURE"]):
            if (row["currency"], row["amount"]) != (payment["currency"], payment["amount"]):
                did = f"{row['kind']} of {_amount(row)}"
                yield f"payment {payment_id} is for {_amount(payment)}, the provider did {did}"
    for payment_id, record in done.items():
        yield f"the provider {_did(record)} for payment {payment_id}, which doesn't exist"


def _attempt_faults(attempts: Rows, operations: Rows) -> Iterator[str]:
    """Each operation of a payment has ended as the provider's record says, and the provider did nothing unasked."""
    record = {row["key"]: row for row in operations}
    for attempt in attempts:
        did = record.pop(_key(attempt), None)
        outcome = did["outcome"] if did else None
        match attempt["state"]:
            case "WAITING" | "PENDING" as state:
                yield f"{_name(attempt)} is {state}: the provider's answer isn't known"
            case "UNNEEDED" if outcome:
                yield f"{_name(attempt)} is UNNEEDED, by the provider's record it is {outcome}"
            case "REFUSED" if outcome is None and attempt["operation"] == "REFUND":
                pass  # the payment itself refuses to give back more than is left
            case "APPROVED" | "REFUSED" as state if outcome != state:
                yield f"{_name(attempt)} is {state}, by the provider's record it is {outcome or 'unknown'}"
    for row in record.values():
        yield f"the provider was asked for {row['kind']} of payment {row['payment_id']}, and the payment doesn't know"


def _unbalanced(booked: Rows) -> Iterator[str]:
    for row in booked:
        if row["off"]:
            yield f"the entries of {_name(row)} sum to {_amount(row, 'off')}"
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
                has, due = _money(payment["currency"], balance), _money(payment["currency"], amount)
                name = f"payment {payment['payment_id']} is {payment['status']}"
                yield f"{name}: the ledger has {has} on {account} for it instead of {due}"


def _ledger_of_provider(booked: Rows, operations: Rows) -> Iterator[str]:
    """Each operation that the provider did is booked once, with its amount, and nothing else is."""
    record = {row["key"]: row for row in operations if row["outcome"] == "APPROVED"}
    for row in booked:
        did = record.pop(_key(row), None)
        if did is None:
            yield f"the ledger has {_name(row)}, which the provider never did"
        elif (did["amount"], did["currency"]) != (row["amount"], row["currency"]):
            yield f"the ledger has {_name(row)} of {_amount(row)}, the provider of {_amount(did)}"
    for key in record:
        yield f"the provider did {key}, which the ledger lacks"


def _key(row: asyncpg.Record) -> str:
    """By which the provider knows an operation."""
    return ":".join(filter(None, (row["payment_id"], row["operation"], row["operation_id"])))


def _name(row: asyncpg.Record) -> str:
    return f"{row['operation']} {row['operation_id']}".rstrip() + f" of payment {row['payment_id']}"


def _did(record: Mapping[str, Rows]) -> str:
    return "did " + (", ".join(sorted(kind for kind, rows in record.items() if rows)) or "nothing")


def _amount(row: asyncpg.Record, column: str = "amount") -> str:
    return _money(row["currency"], row[column])


def _money(currency: str | None, nanos: int | None) -> str:
    return "nothing" if currency is None or nanos is None else str(Money(currency, int(nanos)))
