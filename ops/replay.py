"""`polymart invoices`: a file of invoices as products, customers, carts, orders and what was given back of them.

The file is read twice: first for what was sold at which prices, then invoice by invoice, in its order for each
customer. Memory holds the goods, the customers' names, and those purchases that some credit note of the file could give
back; orders and lines only while they are in hand.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import TypeVar

import grpc
from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest
from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.order.v1 import cart_service_pb2 as carts
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.order.v1.order_pb2 import ORDER_STATUS_CANCELLED, ORDER_STATUS_REJECTED, Order, OrderUnits
from polymart.order.v1.shipment_service_pb2 import CreateShipmentRequest, MarkShipmentDeliveredRequest
from rich.console import Console
from rich.table import Table

from chassis.ids import derived_id
from chassis.money import Money
from ops.clients import PASSING, Clients, follow, pages
from ops.importing import ImportReport, chunks, import_products
from ops.invoices import PREFIX, Goods, Invoice, InvoiceLine, customer, products
from ops.orders import reason_name

T = TypeVar("T")
Purchase = tuple[str, str]  # customer, SKU

IN_FLIGHT = 24
TIMEOUT = 30.0
PATIENCE = 120.0
_SPARE = 100
_BEFORE_IT_IS_SHIPPED = timedelta(days=1)
_OPERATOR = "invoices"
_NEVER = "a credit note for what its customer hadn't bought at that price"
_SO_MANY = "a credit note for more than its customer had bought at that price: given back as far as that goes"


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
    orders: Counter[str] = field(default_factory=Counter)  # by outcome
    cancellations: int = 0
    returns: int = 0
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


@dataclass(slots=True)
class Parcel:
    """What an order sends; `time` is when it was ordered."""

    order_id: str
    time: datetime
    arrived: bool = False


@dataclass(slots=True)
class Bought:
    """A line of an order, and how many of its units could still be given back."""

    parcel: Parcel
    line_number: int
    units: int


class Replay:
    """One run over a stack that `prepare` has filled."""

    def __init__(self, clients: Clients, found: Survey):
        self._clients = clients
        self._credited = found.credited
        self._customers: set[str] = set()
        self._parcels: dict[str, Parcel] = {}
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
                parcel = self._parcels.setdefault(order.order_id, Parcel(order.order_id, lines[0].time))
                self._bought[purchase].append(Bought(parcel, number, bought.quantity))

    async def _give_back(self, invoice: Invoice, lines: list[InvoiceLine]) -> None:
        """Call off what was ordered within the last day, and take back what was ordered before, the last bought first.

        A parcel is shipped, and arrives, when the first of it comes back.
        """
        wanted: dict[str, tuple[Parcel, Counter[int]]] = {}
        for line in lines:
            left = -line.quantity
            for bought in reversed(self._bought[invoice.customer_id, line.sku]):
                if units := min(left, bought.units):
                    _, taken = wanted.setdefault(bought.parcel.order_id, (bought.parcel, Counter()))
                    taken[bought.line_number] += units
                    bought.units -= units
                    left -= units
            if left:
                self.report.skipped[_SO_MANY if left < -line.quantity else _NEVER] += 1
            else:
                self.report.given_back += 1
        for parcel, taken in wanted.values():
            parts = [OrderUnits(line_number=number, quantity=n) for number, n in sorted(taken.items())]
            request_id = derived_id("credit note", invoice.number, lines[0].sku, parcel.order_id)
            if not parcel.arrived and lines[0].time - parcel.time < _BEFORE_IT_IS_SHIPPED:
                await self._cancel(parcel, parts, request_id)
            else:
                await self._return(parcel, parts, request_id)

    async def _cancel(self, parcel: Parcel, units: list[OrderUnits], request_id: str) -> None:
        request = ordering.CancelOrderRequest(
            order_id=parcel.order_id, request_id=request_id, lines=units, reason="a credit note of the same day"
        )
        order = await persistently(lambda: self._clients.orders.CancelOrder(request, timeout=TIMEOUT))
        await self._settled(order)
        self.report.cancellations += 1

    async def _return(self, parcel: Parcel, units: list[OrderUnits], request_id: str) -> None:
        if not parcel.arrived:
            shipping = CreateShipmentRequest(
                order_id=parcel.order_id, request_id=derived_id("parcel", parcel.order_id), operator=_OPERATOR
            )
            sent = await persistently(lambda: self._clients.shipments.CreateShipment(shipping, timeout=TIMEOUT))
            arriving = MarkShipmentDeliveredRequest(shipment_id=sent.shipment_id, operator=_OPERATOR)
            await persistently(lambda: self._clients.shipments.MarkShipmentDelivered(arriving, timeout=TIMEOUT))
            parcel.arrived = True
        request = ordering.ReturnOrderLinesRequest(
            order_id=parcel.order_id,
            request_id=request_id,
            lines=units,
            restock=True,
            reason="a credit note",
            operator=_OPERATOR,
        )
        order = await persistently(lambda: self._clients.orders.ReturnOrderLines(request, timeout=TIMEOUT))
        await self._settled(order)
        self.report.returns += 1

    async def _settled(self, order: Order) -> Order:
        async for seen in follow(self._clients, order.order_id, patience=PATIENCE):
            order = seen
        return order


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
    request = ordering.ListOrdersRequest(page_size=500)
    async for page in pages(clients.orders.ListOrders, request, timeout=TIMEOUT):
        for order in page.orders:
            if order.customer_id.startswith(PREFIX) or not order.customer_id:
                totals[order.customer_id.removeprefix(PREFIX)] += _kept(order)
    return totals


def _kept(order: Order) -> Decimal:
    if order.status in (ORDER_STATUS_REJECTED, ORDER_STATUS_CANCELLED):
        return Decimal(0)
    refunded = Money.from_proto(order.refunded).amount if order.HasField("refunded") else Decimal(0)
    return Money.from_proto(order.total).amount - refunded


def show(out: Console, report: ReplayReport) -> None:
    table = Table("what", "figure", title="invoices", title_justify="left")
    rows = [
        ("invoices", f"{report.invoices:,}"),
        ("lines", f"{report.lines:,}"),
        ("lines ordered", f"{report.ordered:,}"),
        ("lines given back", f"{report.given_back:,}"),
        ("orders called off or in part", f"{report.cancellations:,}"),
        ("parcels taken back from", f"{report.returns:,}"),
        *((f"skipped: {reason}", f"{count:,}") for reason, count in report.skipped.most_common()),
        *((f"orders {outcome}", f"{count:,}") for outcome, count in report.orders.most_common()),
        ("throughput", f"{report.orders.total() / report.seconds:.1f} orders/s" if report.seconds else "–"),
    ]
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for fault in report.faults:
        out.print(f"✗ {fault}", style="red", markup=False)
