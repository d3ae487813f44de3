"""What was called off or came back, by the orders' events, against the money that went back and the stock it is in."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from chassis.money import Money
from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.adapters.read_model import recorded
from order_svc.domain.fulfilment import Progress, as_units
from order_svc.domain.order import Order
from order_svc.domain.refunds import refund_of
from order_svc.domain.saga import STANDING

_PAGE = 500
_NIL = "00000000-0000-0000-0000-000000000000"
_LESS = """
SELECT DISTINCT stream_id FROM events WHERE type IN ('OrderLinesCancelled', 'OrderLinesReturned') AND stream_id > $1
ORDER BY stream_id LIMIT $2
"""
_EVENTS = """
SELECT stream_id, version, type, schema_version, data, occurred_at FROM events
WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version
"""
_BACK = """
SELECT order_id, operation_id, sku, on_hand_delta FROM movements WHERE kind = 'RESTOCK' AND order_id = ANY ($1::text[])
"""


async def audit_fulfilment(stores: Stores, report: Report) -> None:
    async for orders in _reduced(stores):
        back: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for row in await stores.inventory.fetch(_BACK, [order.order_id for order in orders]):
            back[row["order_id"], row["operation_id"]][row["sku"]] += row["on_hand_delta"]
        faults = [fault for order in orders for fault in (*_money_faults(order), *_stock_faults(order, back))]
        report.add(_NAME, len(orders), faults)
    report.add(_NAME, 0, ())


_NAME = "what is called off or returned is given back"


async def _reduced(stores: Stores) -> AsyncIterator[list[Order]]:
    """Orders that stand and of which something was called off or came back, some hundreds at a time; without those
    that can't be read, which the read model's audit names."""
    last = _NIL
    while ids := [str(row["stream_id"]) for row in await stores.orders.fetch(_LESS, last, _PAGE)]:
        last = ids[-1]
        orders = []
        for stream_id, rows in groupby(await stores.orders.fetch(_EVENTS, ids), lambda row: row["stream_id"]):
            try:
                orders.append(Order.fold(str(stream_id), [recorded(row) for row in rows]))
            except (AssertionError, LookupError, ValueError, StopIteration):
                continue
        yield [order for order in orders if order.status in STANDING]


def _money_faults(order: Order) -> Iterator[str]:
    """All parts together brought what they would have at once: what is kept is paid for, less what was given back
    beside that."""
    whole = replace(order, operations=(), refunds={})
    worth = order.total.nanos - refund_of(whole, as_units(order.counts().gone)).nanos
    asked = {o.refund_id for o in order.operations if o.refunding is Progress.DONE}
    gift = sum(amount.nanos for refund_id, amount in order.refunds.items() if refund_id not in asked)
    paid = order.total.nanos - order.refunded.nanos
    if not worth - gift <= paid <= worth:
        currency = order.total.currency
        yield (
            f"order {order.order_id} has {Money(currency, paid)} paid and not given back "
            f"for what is worth {Money(currency, worth)}"
        )


def _stock_faults(order: Order, back: Mapping[tuple[str, str], Counter[str]]) -> Iterator[str]:
    for operation in order.operations:
        found = back.get((order.order_id, operation.operation_id), Counter())
        if found != Counter(operation.restock):
            yield (
                f"order {order.order_id} put {dict(operation.restock) or 'nothing'} back by {operation.operation_id}, "
                f"stock has {dict(found) or 'nothing'}"
            )
