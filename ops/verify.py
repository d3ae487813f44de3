"""`polymart verify`: the invariants of docs/invariants.md, checked over all stores by a read-only auditor."""

import asyncio
from collections.abc import Sequence
from time import monotonic

from devstack.stack import StackInfo
from ops.audit.commerce import audit_commerce
from ops.audit.customers import audit_customers
from ops.audit.messages import audit_messages, waiting_messages
from ops.audit.notifications import audit_notifications
from ops.audit.popularity import audit_popularity
from ops.audit.projections import audit_projections
from ops.audit.report import Finding, Report
from ops.audit.stores import Stores, open_stores

__all__ = ["Finding", "Report", "quiet", "verify"]

_POLL = 0.2
_QUIET_LOOKS = 2


async def verify(info: StackInfo) -> Report:
    """Check everything, on a stack that is quiet. Raises errors.Unavailable for a store that can't be reached."""
    report = Report()
    async with open_stores(info) as stores:
        await audit_commerce(stores, report)
        await audit_popularity(stores, report)
        await audit_projections(stores, report)
        await audit_notifications(stores, report)
        await audit_customers(stores, report)
        await audit_messages(stores, report)
    return report


async def quiet(info: StackInfo, seconds: float, *, strict: bool = True) -> None:
    """Wait until no message waits, all orders are settled and all notifications have ended.

    Raises TimeoutError that names what is still going on, unless it isn't `strict`.
    """
    deadline = monotonic() + seconds
    looks = 0
    async with open_stores(info) as stores:
        while True:
            busy = await _busy(stores)
            looks = 0 if busy else looks + 1
            if looks == _QUIET_LOOKS:
                return
            if monotonic() > deadline:
                if strict:
                    raise TimeoutError(f"not quiet after {seconds:.0f} s: {'; '.join(busy[:5])}")
                return
            await asyncio.sleep(_POLL)


async def _busy(stores: Stores) -> Sequence[str]:
    waiting = [text for text in (await waiting_messages(stores)).values() if text]
    unsettled = await stores.orders.fetchval("SELECT count(*) FROM orders WHERE NOT settled")
    undelivered = await stores.notifications.fetchval("SELECT count(*) FROM notifications WHERE stage < 3")
    asked = await stores.payments.fetchval("SELECT count(*) FROM attempts WHERE state IN ('WAITING', 'PENDING')")
    if unsettled:
        waiting.append(f"{unsettled} orders aren't settled")
    if undelivered:
        waiting.append(f"{undelivered} notifications are on their way")
    if asked:
        waiting.append(f"{asked} questions to the payment provider are open")
    return waiting
