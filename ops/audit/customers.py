"""Customers: of those that were erased nothing can be read, of all others what events carry can."""

from collections.abc import Collection, Iterator

import asyncpg

from ops.audit.report import Report
from ops.audit.stores import Stores

Rows = list[asyncpg.Record]

_KEPT = """
SELECT customer_id, erased, k.customer_id IS NOT NULL AS has_key, v.customer_id IS NOT NULL AS has_code,
    (display_name, email, country, addresses::text, muted::text) <> ('', '', '', '[]', '[]') AS has_details
FROM customers
LEFT JOIN customer_keys AS k USING (customer_id)
LEFT JOIN email_verifications AS v USING (customer_id)
"""
_TOLD = "SELECT notification_id FROM notifications WHERE customer_id = ANY ($1::text[]) AND content <> '{}'"


async def audit_customers(stores: Stores, report: Report) -> None:
    customers = await stores.customers.fetch(_KEPT)
    erased = [row["customer_id"] for row in customers if row["erased"]]
    told = await stores.notifications.fetch(_TOLD, erased)
    report.add("erased customers are unreadable", len(customers), _faults(customers, told))


async def erased_customers(stores: Stores) -> Collection[str]:
    rows = await stores.customers.fetch("SELECT customer_id FROM customers WHERE erased")
    return {row["customer_id"] for row in rows}


def _faults(customers: Rows, told: Rows) -> Iterator[str]:
    for row in customers:
        name = f"customer {row['customer_id']}"
        if not row["erased"]:
            if not row["has_key"]:
                yield f"{name} has no key: nobody can open what events carry of them"
            continue
        if row["has_details"]:
            yield f"{name} was erased and has details"
        if row["has_key"]:
            yield f"{name} was erased, and what events carry of them can still be opened"
        if row["has_code"]:
            yield f"{name} was erased and has a code"
    for row in told:
        yield f"notification {row['notification_id']} still says what an erased customer was told"
