"""`polymart invoices`: a file of invoices as products, customers, carts, orders and what was given back of them.

The file is read twice: first for what was sold at which prices, then invoice by invoice, in its order for each
customer. Memory holds the goods, the customers' names, and those purchases that some credit note of the file could give
back; orders and lines only while they are in hand.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from time import monotonic
from typing import Any, TypeVar

import grpc
from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest
from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.order.v1 import cart_service_pb2 as carts
from polymart.order.v1.order_pb2 import ORDER_STATUS_CANCELLED, ORDER_STATUS_REJECTED, Order
from polymart.order.v1.order_service_pb2 import ListOrdersRequest
from rich.console import Console
from rich.table import Table

from chassis.money import Money
from ops.clients import PASSING, Clients, follow
from ops.importing import ImportReport, chunks, import_products
from ops.invoices import PREFIX, Goods, Invoice, InvoiceLine, customer, products
from ops.orders import reason_name

T = TypeVar("T")
Purchase = tuple[str, str]  # customer, SKU

IN_FLIGHT = 24
TIMEOUT = 30.0
PATIENCE = 120.0
_SPARE = 100


@dataclass(slots=True)
class Survey:
    """What a file needs to be there before: goods, units sold by tracked SKU. `credited` is what credit notes name."""

    goods: dict[str, Goods] = field(default_factory=dict)
    demand: Counter[str] = field(default_factory=Counter)
    credited: set[Purchase] = field(default_factory=set)


@dataclass(slots=True)
class ReplayReport:
    """What became of each line; `faults` are sentences, and there should be none."""

    invoices: int = 0
    lines: int = 0
    ordered: int = 0
    given_back: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    units_not_matched: int = 0
    orders: Counter[str] = field(default_factory=Counter)  # by outcome
    cancellations: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        return self.lines - self.ordered - self.given_back - self.skipped.total()


def skipped(invoice: Invoice, line: InvoiceLine) -> str:
    """Why a line becomes neither part of an order nor something to give back; empty if it does."""
    if line.price is not None and line.price < 0:
        return "a debt that was written off: a price below zero"
    if invoice.cancellation:
        if line.quantity >= 0:
            return "a credit note that takes nothing back"
        if line.price is None:
            return "a credit note without a price"
        return "" if line.customer else "a credit note of nobody known"
    if invoice.correction:
        return "a stock correction: an invoice without any price"
    return "" if line.quantity > 0 else "units below one outside a credit note"


def survey(invoices: Iterable[Invoice]) -> Survey:
    found = Survey()
    for invoice in invoices:
        for line in invoice.lines:
            if skipped(invoice, line):
                continue
            if invoice.cancellation:
                found.credited.add((invoice.customer_id, line.sku))
                continue
            item = found.goods.setdefault(line.code, Goods(line.code, tracked=line.tracked))
            item.descriptions[line.description] += bool(line.description)
            item.prices[line.price or Decimal(0)] += 1
            if line.tracked:
                found.demand[line.sku] += line.quantity
    return found


async def set_stock(clients: Clients, levels: Mapping[str, int], on_done: Callable[[int], object]) -> None:
    for part in chunks(levels.items(), 1000):
        counts = [inventory.StockCount(sku=sku, on_hand=units) for sku, units in part]
        await clients.inventory.SetStock(inventory.SetStockRequest(counts=counts), timeout=TIMEOUT)
        on_done(len(counts))


async def prepare(clients: Clients, found: Survey) -> None:
    """Products, and stock for all that is ordered. Raises ValueError naming what the catalog doesn't take."""
    report = ImportReport()
    rows = (ImportProductsRequest(row=n, product=p) for n, p in enumerate(products(found.goods.values()), start=1))
    await import_products(clients.catalog, rows, report)
    if report.rejections:
        raise ValueError("; ".join(f"product {r.row} of the invoices: {r.reason}" for r in report.rejections))
    await set_stock(clients, {sku: units + _SPARE for sku, units in found.demand.items()}, lambda _: None)


class Replay:
    """One run over a stack that `prepare` has filled."""

    def __init__(self, clients: Clients, found: Survey):
        self._clients = clients
        self._credited = found.credited
        self._customers: set[str] = set()
        self._bought: dict[Purchase, list[Bought]] = defaultdict(list)
        self.report = ReplayReport()

    async def run(
        self,
        invoices: Iterable[Invoice],
        *,
        seconds: float | None = None,
        in_flight: int = IN_FLIGHT,
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        """Play the invoices, or those that can be begun within so many seconds: always a whole beginning of the file.

        Those of one customer follow each other, up to `in_flight` of different ones go together.
        """
        slots, last = asyncio.Semaphore(in_flight), dict[str, asyncio.Task[None]]()
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for invoice in invoices:
                await slots.acquire()
                if seconds is not None and monotonic() - began >= seconds:
                    break
                self.report.invoices += 1
                self.report.lines += len(invoice.lines)
                lane = invoice.customer_id or invoice.number
                task = last[lane] = group.create_task(self._one(invoice, last.get(lane)))

                def done(task: asyncio.Task[None], lane: str = lane) -> None:
                    slots.release()
                    if last.get(lane) is task:
                        del last[lane]
                    on_done()

                task.add_done_callback(done)
        self.report.seconds = monotonic() - began

    async def _one(self, invoice: Invoice, before: asyncio.Task[None] | None) -> None:
        if before:
            await asyncio.wait({before})
        wanted: list[InvoiceLine] = []
        for line in invoice.lines:
            if reason := skipped(invoice, line):
                self.report.skipped[reason] += 1
            else:
                wanted.append(line)
        if not wanted:
            return
        if invoice.cancellation:
            await self._give_back(invoice, wanted)
        else:
            await self._order(invoice, wanted)

    async def _order(self, invoice: Invoice, lines: list[InvoiceLine]) -> None:
        who = invoice.customer_id
        if who and who not in self._customers:
            request = CreateCustomerRequest(customer=customer(invoice))
            await persistently(lambda: self._clients.customers.CreateCustomer(request, timeout=TIMEOUT))
            self._customers.add(who)
        units = Counter[str]()
        for line in lines:
            units[line.sku] += line.quantity
        cart = await persistently(
            lambda: self._clients.carts.CreateCart(carts.CreateCartRequest(customer_id=who), timeout=TIMEOUT)
        )
        filled = carts.SetCartLinesRequest(
            cart_id=cart.cart_id, lines=[carts.SetCartLine(sku=sku, quantity=n) for sku, n in units.items()]
        )
        await persistently(lambda: self._clients.carts.SetCartLines(filled, timeout=TIMEOUT))
        checkout = carts.CheckoutCartRequest(cart_id=cart.cart_id, payment_token="tok_approved")
        placed = await persistently(lambda: self._clients.carts.CheckoutCart(checkout, timeout=TIMEOUT))
        order = await self._settled(placed)
        self.report.orders[reason_name(order)] += 1
        self.report.ordered += len(lines)
        if reason_name(order) != "CONFIRMED":
            self.report.faults.append(f"invoice {invoice.number}: {reason_name(order)}: {order.failure.message}")
        for number, bought in enumerate(order.lines, start=1):
            if (purchase := (who, bought.sku)) in self._credited:
                self._bought[purchase].append(Bought(order.order_id, number, bought.quantity))

    async def _give_back(self, invoice: Invoice, lines: list[InvoiceLine]) -> None:
        """Nothing is called off or taken back yet."""
        self.report.skipped["a credit note: not yet"] += len(lines)

    async def _settled(self, order: Order) -> Order:
        async for seen in follow(self._clients, order.order_id, patience=PATIENCE):
            order = seen
        return order


@dataclass(slots=True)
class Bought:
    """A line of an order, and how many of its units could still be given back."""

    order_id: str
    line_number: int
    units: int


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """The call's answer, tried again while the service is away. Raises what another try won't mend."""
    deadline = monotonic() + PATIENCE
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in PASSING or monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)


async def kept_by_customer(clients: Clients) -> Mapping[str, Decimal]:
    """What the orders of each of the invoices' customers come to, less what was given back; guests together as ""."""
    totals: dict[str, Decimal] = defaultdict(Decimal)
    request = ListOrdersRequest(page_size=500)
    while True:
        page = await clients.orders.ListOrders(request, timeout=TIMEOUT)
        for order in page.orders:
            if order.customer_id.startswith(PREFIX) or not order.customer_id:
                totals[order.customer_id.removeprefix(PREFIX)] += _kept(order)
        if not page.next_page_token:
            return totals
        request.page_token = page.next_page_token


def _kept(order: Any) -> Decimal:
    if order.status in (ORDER_STATUS_REJECTED, ORDER_STATUS_CANCELLED):
        return Decimal(0)
    return Money.from_proto(order.total).amount


def show(out: Console, report: ReplayReport) -> None:
    table = Table("what", "figure", title="invoices", title_justify="left")
    rows = [
        ("invoices", f"{report.invoices:,}"),
        ("lines", f"{report.lines:,}"),
        ("lines ordered", f"{report.ordered:,}"),
        ("lines given back", f"{report.given_back:,}"),
        *((f"skipped: {reason}", f"{count:,}") for reason, count in report.skipped.most_common()),
        *((f"orders {outcome}", f"{count:,}") for outcome, count in report.orders.most_common()),
        ("throughput", f"{report.orders.total() / report.seconds:.1f} orders/s" if report.seconds else "–"),
    ]
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for fault in report.faults:
        out.print(f"✗ {fault}", style="red", markup=False)
