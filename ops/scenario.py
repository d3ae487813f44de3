"""What the demo plays: which stock there is, who pays how, and so what must become of every order."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

from polymart.customer.v1.customer_pb2 import Customer

from ops.invoices import Goods, Invoice, customer, demand, goods, sku

APPROVED, DECLINED, TIMES_OUT_ONCE, ANSWERS_LATE = "tok_approved", "tok_declined", "tok_timeout_once", "tok_late"
# So many orders are placed one at a time first, to see how long one takes when nothing else runs.
UNLOADED = 20
_SPARE = 100


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """An invoice as it will be placed, and the outcome the plan leads to."""

    invoice: Invoice
    request_id: str
    token: str
    outcome: str  # CONFIRMED, OUT_OF_STOCK or PAYMENT_DECLINED

    @property
    def total(self) -> Decimal:
        return self.invoice.total


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the invoices become."""

    orders: tuple[PlannedOrder, ...]
    goods: dict[str, Goods]
    stock: dict[str, int]
    adjustments: tuple[tuple[str, int], ...]  # SKU, units
    unmatched: tuple[Invoice, ...]  # corrections whose code no order bought
    cancellations: tuple[Invoice, ...]

    def customers(self) -> Iterator[Customer]:
        seen = {order.invoice.customer_id: order.invoice for order in self.orders if order.invoice.customer_id}
        yield from map(customer, seen.values())


def plan(invoices: Sequence[Invoice]) -> Plan:
    """Stock for every order but a few, each short of one unit of something only it wants; some payments declined."""
    sales = [i for i in invoices if not i.cancellation and not i.correction]
    bought = goods(sales)
    wanted = demand(sales)
    stock = {code: units + _SPARE for code, units in wanted.items()}
    buyers = Counter(s for invoice in sales for s in {line.sku for line in invoice.lines if line.tracked})
    adjustments, unmatched = _corrections([i for i in invoices if i.correction], bought)
    added = Counter[str]()
    for code, units in adjustments:
        added[code] += units
    orders = []
    for number, invoice in enumerate(sales):
        token, outcome = APPROVED, "CONFIRMED"
        if number >= UNLOADED:
            match number % 20:
                case 3 if short := next((x.sku for x in invoice.lines if x.tracked and buyers[x.sku] == 1), None):
                    stock[short] = wanted[short] - 1 - added[short]
                    outcome = "OUT_OF_STOCK"
                case 7 | 17:
                    token, outcome = DECLINED, "PAYMENT_DECLINED"
                case 11:
                    token = TIMES_OUT_ONCE
                case 13:
                    token = ANSWERS_LATE
        orders.append(PlannedOrder(invoice, str(uuid5(NAMESPACE_URL, f"invoice:{invoice.number}")), token, outcome))
    return Plan(
        orders=tuple(orders),
        goods=bought,
        stock=stock,
        adjustments=tuple(adjustments),
        unmatched=tuple(unmatched),
        cancellations=tuple(i for i in invoices if i.cancellation),
    )


def _corrections(
    corrections: Iterable[Invoice], bought: dict[str, Goods]
) -> tuple[list[tuple[str, int]], list[Invoice]]:
    """A correction goes to the variant its code sold most; without one it is left."""
    adjustments, unmatched = [], []
    for invoice in corrections:
        for line in invoice.lines:
            if (item := bought.get(line.code)) and item.tracked:
                adjustments.append((sku(line.code, item.prices.most_common(1)[0][0]), line.quantity))
            else:
                unmatched.append(invoice)
    return adjustments, unmatched
