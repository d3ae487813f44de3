"""`polymart demo`: real products and real invoices through every service, checked to the penny."""

import asyncio
import os
import shutil
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from email import message_from_bytes, policy
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest, ListProductsRequest
from polymart.customer.v1.customer_service_pb2 import CreateCustomerRequest
from polymart.inventory.v1 import inventory_service_pb2 as inventory
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.order.v1.order_pb2 import ORDER_STATUS_CONFIRMED, ORDER_STATUS_PENDING, Order
from polymart.search.v1.search_service_pb2 import (
    AttributeFilter,
    GetIndexStatusRequest,
    SearchFilter,
    SearchProductsRequest,
)
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from chassis.ids import derived_id
from chassis.messaging.nats import Nats
from chassis.money import Money
from devstack.stack import Stack
from ops import orders, search
from ops.clients import PASSING, Clients, follow
from ops.importing import ImportReport, chunks, import_products, read_products
from ops.invoices import products, read
from ops.replay import set_stock
from ops.scenario import UNLOADED, Plan, PlannedOrder, plan
from ops.verify import Report, quiet, verify

DATA = Path(__file__).resolve().parent.parent / "data"
INVOICES = 200
IN_FLIGHT = 16
TIMEOUT = 30.0
PATIENCE = 120.0

SEARCHES = (
    SearchProductsRequest(text="hdmi cable", attribute_facets=["cable_length"], page_size=4),
    SearchProductsRequest(text="black toner cartridge", attribute_facets=["printing_colours"], page_size=4),
    SearchProductsRequest(text="wireless mouse", attribute_facets=["device_interface"], page_size=4),
    SearchProductsRequest(
        text="notebook",
        filter=SearchFilter(attributes=[AttributeFilter(name="product_colour", values=["Black"])]),
        attribute_facets=["product_colour"],
        page_size=4,
    ),
    SearchProductsRequest(text="laser printr", attribute_facets=["print_technology"], page_size=4),
)


@dataclass(slots=True)
class Outcome:
    """What became of one planned order. Times in seconds on the client's clock."""

    planned: PlannedOrder
    order: Order
    answered: float
    decided: float

    @property
    def latency(self) -> float:
        """From PlaceOrder's answer to the decision as WatchOrder told it."""
        return self.decided - self.answered


@dataclass(slots=True)
class Result:
    """What the summary is made of; `faults` are sentences, and any makes the demo fail."""

    imported: ImportReport = field(default_factory=ImportReport)
    outcomes: list[Outcome] = field(default_factory=list)
    loaded_seconds: float = 0.0
    mails: int = 0
    faults: list[str] = field(default_factory=list)
    verified: Report | None = None


class Steps(Progress):
    """Bars on a terminal; elsewhere, as in a file, a line for each step as it begins."""

    def __init__(self, console: Console):
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        super().__init__(*columns, console=console, disable=not console.is_terminal)

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        self._tell(description)
        return super().add_task(description, *args, **options)

    def rename(self, task: TaskID, description: str) -> None:
        self._tell(description)
        self.update(task, description=description)

    def _tell(self, description: str) -> None:
        if self.disable:
            self.console.print(description, markup=False, highlight=False)


class Demo:
    """One run over a stack that is up and empty."""

    def __init__(self, clients: Clients, mailbox: Path, console: Console, progress: Progress):
        self._clients = clients
        self._mailbox = mailbox
        self._console = console
        self._progress = progress
        self.result = Result()

    async def fill_catalog(self, path: Path) -> None:
        """Import the products, set their stock, and wait until search has both."""
        report = self.result.imported
        task = self._progress.add_task("importing products", total=None)
        skus: list[str] = []

        def rows() -> Iterator[ImportProductsRequest]:
            for request in read_products(path, report):
                skus.extend(v.sku for v in request.product.variants)
                yield request

        await import_products(
            self._clients.catalog,
            rows(),
            report,
            lambda n: self._progress.advance(task, n),
        )
        self._progress.update(task, total=report.rows, completed=report.rows)
        if report.rejections:
            raise ValueError("; ".join(f"line {r.row} of {path.name}: {r.reason}" for r in report.rejections))
        levels = {sku: (0, 3, 40)[2 if number % 9 else number % 2] for number, sku in enumerate(skus)}
        await self._set_stock(levels, "setting stock")
        stocked = sum(1 for units in levels.values() if units)
        await self._wait_for_search(len(skus), stocked)

    async def _set_stock(self, levels: dict[str, int], title: str) -> None:
        task = self._progress.add_task(title, total=len(levels))
        await set_stock(self._clients, levels, lambda n: self._progress.advance(task, n))

    async def _wait_for_search(self, products: int, in_stock: int) -> None:
        task = self._progress.add_task("search catches up", total=products + in_stock)
        deadline = monotonic() + PATIENCE
        while True:
            try:
                status = await self._clients.search.GetIndexStatus(GetIndexStatusRequest(), timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING or monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
                continue
            seen = (min(status.products, products), min(status.products_in_stock, in_stock))
            self._progress.update(task, completed=sum(seen))
            if seen == (products, in_stock):
                return
            if monotonic() > deadline:
                raise TimeoutError(f"search has {seen[0]} of {products} products, {seen[1]} of {in_stock} in stock")
            await asyncio.sleep(0.1)

    async def search(self) -> None:
        for request in SEARCHES:
            response = await self._clients.search.SearchProducts(request, timeout=TIMEOUT)
            search.show(self._console, request, response)
            self._console.print()
            if not response.hits or not any(facet.values for facet in response.facets):
                self.result.faults.append(f"the search for {request.text!r} found nothing to show")

    async def prepare_orders(self, plan: Plan) -> None:
        """Products, stock, customers and stock corrections of the invoices."""
        report = ImportReport()
        rows = (ImportProductsRequest(row=n, product=p) for n, p in enumerate(products(plan.goods.values()), start=1))
        await import_products(self._clients.catalog, rows, report)
        self.result.faults += [f"product {r.row} of the invoices: {r.reason}" for r in report.rejections]
        await self._set_stock(plan.stock, "stocking what the invoices sold")
        customers = list(plan.customers())
        task = self._progress.add_task("registering customers", total=len(customers))
        for part in chunks(customers, IN_FLIGHT):
            requests = [CreateCustomerRequest(customer=customer) for customer in part]
            await asyncio.gather(*(self._clients.customers.CreateCustomer(r, timeout=TIMEOUT) for r in requests))
            self._progress.advance(task, len(part))
        for number, (sku, units) in enumerate(plan.adjustments):
            request = inventory.AdjustStockRequest(
                request_id=derived_id("correction", str(number), sku),
                adjustments=[inventory.StockAdjustment(sku=sku, delta=units, reason="invoice without price")],
            )
            await self._clients.inventory.AdjustStock(request, timeout=TIMEOUT)

    async def replay(self, plan: Plan) -> None:
        """Place every order and follow it until it is settled: the first ones alone, the others together."""
        alone, together = plan.orders[:UNLOADED], plan.orders[UNLOADED:]
        task = self._progress.add_task("placing orders, one at a time", total=len(alone))
        for planned in alone:
            self.result.outcomes.append(await self._order(planned))
            self._progress.advance(task)
        task = self._progress.add_task(f"placing orders, {IN_FLIGHT} in flight", total=len(together))
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def one(planned: PlannedOrder) -> Outcome:
            async with slots:
                outcome = await self._order(planned)
            self._progress.advance(task)
            return outcome

        began = monotonic()
        self.result.outcomes += await asyncio.gather(*map(one, together))
        self.result.loaded_seconds = monotonic() - began
        self.result.faults += [fault for o in self.result.outcomes for fault in unexpected(o)]

    async def _order(self, planned: PlannedOrder) -> Outcome:
        request = ordering.PlaceOrderRequest(
            request_id=planned.request_id,
            customer_id=planned.invoice.customer_id,
            lines=[ordering.PlaceOrderLine(sku=x.sku, quantity=x.quantity) for x in planned.invoice.lines],
            payment_token=planned.token,
        )
        placed = order = await self._clients.orders.PlaceOrder(request, timeout=TIMEOUT)
        answered = decided = monotonic()
        pending = True
        async for order in follow(self._clients, placed.order_id, patience=PATIENCE):
            if pending and order.status != ORDER_STATUS_PENDING:
                pending, decided = False, monotonic()
        return Outcome(planned, order, answered, decided)

    async def show_one(self) -> None:
        """One confirmed order's lines, history and e-mail."""
        shown = next(
            o
            for o in self.result.outcomes
            if o.order.status == ORDER_STATUS_CONFIRMED and o.order.customer_id and 2 < len(o.order.lines) < 9
        )
        history = await self._clients.orders.GetOrderHistory(
            ordering.GetOrderHistoryRequest(order_id=shown.order.order_id), timeout=TIMEOUT
        )
        orders.show_order(self._console, shown.order)
        orders.show_history(self._console, history)
        mails = {
            path: message_from_bytes(path.read_bytes(), policy=policy.default)
            for path in sorted(self._mailbox.glob("*.eml"))
        }
        self.result.mails = len(mails)
        mail = next((m for m in mails.values() if m["X-Polymart-Order-Id"] == shown.order.order_id), None)
        if mail is None:
            self.result.faults.append(f"no e-mail about order {shown.order.order_id}")
            return
        body = mail.get_body(("plain",))
        self._console.rule(f"its e-mail, {mail['Message-ID']}", align="left")
        self._console.print(f"To: {mail['To']}\nSubject: {mail['Subject']}\n", markup=False)
        self._console.print(body.get_content().strip() if body else "", markup=False)
        self._console.rule()


def unexpected(outcome: Outcome) -> Iterator[str]:
    """What differs between an order and its invoice or the plan."""
    planned, order = outcome.planned, outcome.order
    name = f"invoice {planned.invoice.number}"
    if Money.from_proto(order.total).amount != planned.total:
        yield f"{name}: the order's total is {Money.from_proto(order.total)}, the invoice's {planned.total}"
    if orders.reason_name(order) != planned.outcome:
        yield f"{name}: expected {planned.outcome}, became {orders.reason_name(order)}"
    if not order.settled:
        yield f"{name}: not settled"


async def refuse_used(clients: Clients, nats_url: str) -> None:
    """Raises ValueError for engines that hold anything: named by URLs in the environment, they keep what they had."""
    products = await clients.catalog.ListProducts(ListProductsRequest(page_size=1), timeout=TIMEOUT)
    found = await clients.orders.ListOrders(ordering.ListOrdersRequest(page_size=1), timeout=TIMEOUT)
    indexed = await clients.search.GetIndexStatus(GetIndexStatusRequest(), timeout=TIMEOUT)
    nats = Nats(nats_url, "polymart demo")
    await nats.open()
    try:
        await nats.ready()
        messages = sum(stream.state.messages for stream in await nats.js.streams_info())
    finally:
        await nats.close()
    holds = {
        "MongoDB has products": products.products,
        "Elasticsearch has products": indexed.products,
        "PostgreSQL has orders": found.orders,
        "NATS has messages": messages,
    }
    if used := [name for name, what in holds.items() if what]:
        raise ValueError(f"the demo needs empty engines, but {', '.join(used)}: unset their URLs, or name empty ones")


async def run(
    home: Path, console: Console, *, invoices: int = INVOICES, environ: Mapping[str, str] = os.environ
) -> bool:
    """The whole demo in a new data folder under `home`; True if nothing was wrong."""
    folder = home / "demo"
    if (folder / "stack.json").exists():
        # Refuses when that stack still runs, so that nobody's data is thrown away under them.
        Stack(folder).refuse_if_running()
    shutil.rmtree(folder, ignore_errors=True)
    began = monotonic()
    with Steps(console) as progress:
        starting = progress.add_task("starting the stack", total=None)
        stack = Stack(folder, environ=environ, on_progress=lambda text: progress.rename(starting, text))
        async with stack:
            progress.update(starting, description="stack started", total=1, completed=1)
            clients = Clients(stack.address)
            try:
                await refuse_used(clients, stack.info().nats_url)
                demo = Demo(clients, stack.mailbox, console, progress)
                await demo.fill_catalog(DATA / "products.jsonl.gz")
                await demo.search()
                playing = plan(read(DATA / "invoice_lines.csv.gz", invoices))
                await demo.prepare_orders(playing)
                await demo.replay(playing)
                waiting = progress.add_task("waiting until all is quiet", total=None)
                await quiet(stack.info(), PATIENCE)
                progress.update(waiting, total=1, completed=1)
                await demo.show_one()
                report = demo.result.verified = await verify(stack.info())
                memory = stack.memory()
            finally:
                await clients.close()
            progress.add_task("stopping", total=None)
    result = demo.result
    report.print(console)
    console.print(summary(result, playing, memory, monotonic() - began))
    for fault in result.faults:
        console.print(f"✗ {fault}", style="red", markup=False)
    return not result.faults and not report.findings


def summary(result: Result, playing: Plan, memory: dict[str, int], seconds: float) -> Table:
    confirmed = [o for o in result.outcomes if o.order.status == ORDER_STATUS_CONFIRMED]
    told = sum((Money.from_proto(o.order.total).amount for o in confirmed), Decimal(0))
    computed = sum((o.planned.total for o in confirmed), Decimal(0))
    if told != computed:
        result.faults.append(f"confirmed orders sum to {told}, their invoices to {computed}")
    kinds = Counter(orders.reason_name(o.order) for o in result.outcomes)
    loaded = result.outcomes[UNLOADED:]
    unloaded = [o.latency for o in result.outcomes[:UNLOADED] if o in confirmed]
    rate, line_rate = len(loaded) / result.loaded_seconds, lines(loaded) / result.loaded_seconds
    left = ", ".join(sorted({line.code for i in playing.unmatched for line in i.lines}))
    services = {name: size for name, size in memory.items() if name.endswith("_svc")}
    table = Table("what", "figure", title="summary", title_justify="left")
    rows: Sequence[tuple[str, str]] = [
        ("products imported", f"{result.imported.outcomes['CREATED']:,} of {result.imported.rows:,} rows"),
        (
            "products from invoices",
            f"{len(playing.goods):,} with {sum(len(g.prices) for g in playing.goods.values()):,} variants",
        ),
        ("invoices", f"{len(result.outcomes)} orders, {len(playing.cancellations)} cancellations left for returns"),
        (
            "stock corrections",
            f"{len(playing.adjustments)} applied, {len(playing.unmatched)} without a variant: {left}",
        ),
        ("orders confirmed", f"{kinds['CONFIRMED']}"),
        ("orders rejected", f"{kinds['OUT_OF_STOCK']} out of stock, {kinds['PAYMENT_DECLINED']} payment declined"),
        ("total of confirmed orders", f"{told:,.2f} GBP"),
        ("the same from the file", f"{computed:,.2f} GBP"),
        ("e-mails delivered", f"{result.mails}"),
        (
            "throughput",
            f"{rate:.1f} orders/s, {line_rate:.0f} lines/s, {IN_FLIGHT} in flight",
        ),
        ("answer to CONFIRMED, unloaded", milliseconds(unloaded)),
        ("answer to decision, loaded", milliseconds([o.latency for o in loaded])),
        ("memory of the services", f"{sum(services.values()) / 2**20:.0f} MB (PSS)"),
        *((f"  {name}", f"{size / 2**20:.0f} MB") for name, size in sorted(memory.items())),
        ("whole demo", f"{seconds:.0f} s"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def lines(outcomes: Iterable[Outcome]) -> int:
    return sum(len(o.order.lines) for o in outcomes)


def milliseconds(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "–"
    ordered = sorted(seconds)
    p95 = ordered[int(len(ordered) * 0.95)]
    return f"median {statistics.median(ordered) * 1000:.0f} ms, 95% {p95 * 1000:.0f} ms"
