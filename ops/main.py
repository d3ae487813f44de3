"""The `polymart` command."""

import asyncio
import os
import signal
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from polymart.catalog.v1 import catalog_service_pb2 as catalog
from polymart.search.v1.search_service_pb2 import (
    AttributeFilter,
    CompletionKind,
    DropOldIndexRequest,
    GetIndexStatusRequest,
    IndexStatus,
    ListSearchedTextsRequest,
    ListTrendingProductsRequest,
    RollbackIndexRequest,
    SearchFilter,
    SearchProductsRequest,
    SuggestCompletionsRequest,
)
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from devstack.engines import SEARCH_ENGINE
from devstack.stack import ALL_SERVICES, Stack, StackInfo, default_home, stop_running
from ops import carts, customers, dlq, lifecycle, notifications, orders, reindexing, replay, search, stock
from ops import demo as demonstration
from ops.clients import asynchronous, clients, console, fail, interruptible, print_data, running_stack
from ops.importing import ImportReport, import_products, read_products
from ops.invoices import stream
from ops.orders import JsonOption
from ops.relevance import read_judged, relevance
from ops.tables import read_mapping
from ops.verify import quiet, verify

if TYPE_CHECKING:
    from polymart.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Polymart: an event-driven commerce backend. Settings come from POLYMART_* variables.",
)
app.add_typer(lifecycle.app, name="order")
app.add_typer(carts.app, name="cart")
app.add_typer(stock.app, name="stock")
app.add_typer(customers.app, name="customer")
app.add_typer(notifications.app, name="notification")
app.add_typer(dlq.app, name="dlq")


class UnknownCategory(Enum):
    """What to do with rows whose category isn't there."""

    CREATE = "create"
    REJECT = "reject"


class SearchEngine(Enum):
    OSMEM = "osmem"
    OPENSEARCH = "opensearch"


TRY = """
Try, in another terminal in this folder:
  .venv/bin/polymart import data/products.jsonl.gz
  .venv/bin/polymart search "hdmi cable" --facet cable_length
  .venv/bin/polymart order place 138175=2 && .venv/bin/polymart order list
Any gRPC client can ask the services: they speak reflection."""


SearchEngineOption = Annotated[
    SearchEngine | None, typer.Option(help=f"What is started for search; by default {SEARCH_ENGINE}, or osmem.")
]


def stack_environment(search_engine: SearchEngine | None) -> dict[str, str]:
    chosen = {SEARCH_ENGINE: search_engine.value} if search_engine else {}
    return {**os.environ, **chosen}


@app.command()
@asynchronous
async def up(search_engine: SearchEngineOption = None) -> None:
    """Start every engine and service and leave them running until Ctrl-C."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with console.status("starting") as status:
        stack = Stack(default_home(), environ=stack_environment(search_engine), on_progress=status.update)
        starting = asyncio.create_task(stack.start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        finally:
            stopping.cancel()
    try:
        if not starting.cancelled():
            await starting
            print_addresses(stack.info())
            console.print(TRY, markup=False, highlight=False)
            console.print("\nCtrl-C stops everything; the data stays.", style="dim")
            await stop.wait()
    finally:
        with console.status("stopping"):
            await stack.stop()


def print_addresses(info: StackInfo) -> None:
    table = Table("what", "address")
    for name, address in info.endpoints().items():
        table.add_row(name, escape(address))
    console.print(table)


@app.command()
@asynchronous
async def down() -> None:
    """Stop the stack that `polymart up` started in this folder."""
    with console.status("stopping"):
        stopped = await stop_running(default_home())
    console.print("stopped" if stopped else "nothing was running")


@app.command()
@asynchronous
async def status(json: JsonOption = False) -> None:
    """Show each service's health, address and memory. Exit code 1 unless all serve."""
    info = running_stack()
    memory = info.memory()
    async with clients() as c:
        asked = await asyncio.gather(*(health(c.channel(name)) for name in ALL_SERVICES))
    states = dict(zip(ALL_SERVICES, asked, strict=True))
    if json:
        rows = {n: {"health": s, "address": info.address(n), "pss_bytes": memory.get(n)} for n, s in states.items()}
        print_data(rows)
    else:
        table = Table("service", "health", "address", "memory")
        for name, state in states.items():
            style = "green" if state == "SERVING" else "red"
            size = f"{memory[name] / 2**20:.0f} MB" if name in memory else "–"
            table.add_row(name, f"[{style}]{state}[/]", info.address(name), size)
        console.print(table)
    if set(states.values()) != {"SERVING"}:
        raise typer.Exit(1)


async def health(channel: object) -> str:
    try:
        answer = await HealthStub(channel).Check(HealthCheckRequest(), timeout=3)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the reason, a person wants to see the rest of the table
        code = getattr(error, "code", None)
        return code().name if code else type(error).__name__
    return HealthCheckResponse.ServingStatus.Name(answer.status)


@app.command()
@asynchronous
async def demo(
    invoices: Annotated[
        int, typer.Option(min=1, help="Replay so many of the file's invoices.")
    ] = demonstration.INVOICES,
    search_engine: SearchEngineOption = None,
) -> None:
    """Play the whole path once in a data folder of its own, and check that nothing got lost."""
    if not await interruptible(
        demonstration.run(default_home(), console, invoices=invoices, environ=stack_environment(search_engine))
    ):
        fail("the demo ended with faults; its data and logs are in " + os.path.relpath(default_home() / "demo"))


@app.command("invoices")
@asynchronous
async def replay_invoices(
    file: Annotated[Path, typer.Argument(help="Invoice lines as CSV; .gz or plain.", dir_okay=False)],
    seconds: Annotated[float, typer.Option(min=1, help="Begin no more invoices after so long.")] = 300,
    whole: Annotated[bool, typer.Option("--all", help="Play the whole file, however long it takes.")] = False,
) -> None:
    """Play real invoices as customers, carts and orders, and stock what they sold. Exit code 1 if one goes wrong."""
    found = replay.survey(stream(file))
    async with clients() as c:
        await replay.prepare(c, found)
        playing = replay.Replay(c, found)
        await playing.run(stream(file), seconds=None if whole else seconds)
    replay.show(console, playing.report)
    if playing.report.faults or playing.report.unexplained:
        raise typer.Exit(1)


@app.command("import")
@asynchronous
async def import_file(
    file: Annotated[
        Path,
        typer.Argument(help="Products, a JSON object a line, or CSV with --mapping; .gz or plain.", dir_okay=False),
    ],
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file that says which column of a CSV file is what.", dir_okay=False)
    ] = None,
    unknown_category: Annotated[
        UnknownCategory, typer.Option(help="Make categories that aren't there, or reject their rows.")
    ] = UnknownCategory.CREATE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would become of each row, and write nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Import products. Bad lines are reported by number and the others go in; exit code 1 if there were any.

    It can be broken off and begun again: rows that are in the catalog just so are not written.
    """
    report = ImportReport()
    if mapping is None and file.name.removesuffix(".gz").endswith(".csv"):
        raise ValueError(f"{file.name}: a CSV file needs --mapping")
    table = read_mapping(mapping) if mapping else None
    policy = catalog.UnknownCategory.Value(f"UNKNOWN_CATEGORY_{unknown_category.name}")

    def rows() -> Iterator[catalog.ImportProductsRequest]:
        for row in read_products(file, report, table):
            row.unknown_category, row.validate_only = policy, dry_run
            yield row

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    # What can't be begun at all is told without a bar.
    file.open("rb").close()
    async with clients() as c:
        service = c.catalog
        with Progress(*columns, console=console, disable=json) as progress:
            task = progress.add_task(file.name, total=None)
            await import_products(service, rows(), report, lambda n: progress.advance(task, n))
            progress.update(task, total=report.rows, completed=report.rows)
    if json:
        rejected = [{"line": r.row, "reason": r.reason} for r in report.rejections]
        print_data({**report.outcomes, "dry_run": dry_run, "rejections": rejected})
    else:
        counts = ", ".join(f"{count:,} {name.lower()}" for name, count in sorted(report.outcomes.items()))
        title = f"{file.name}, dry run" if dry_run else file.name
        console.print(f"{title}: {counts or 'no rows'}", markup=False)
        if report.rows and not report.written:
            console.print("nothing was written" if not dry_run else "nothing would be written")
        for rejection in report.rejections:
            console.print(f"line {rejection.row}: {rejection.reason}", style="red", markup=False, soft_wrap=True)
        if more := report.outcomes["REJECTED"] - len(report.rejections):
            console.print(f"and {more:,} more lines", style="red")
    if report.rejections:
        raise typer.Exit(1)


@app.command("search")
@asynchronous
async def search_products(
    text: Annotated[str, typer.Argument(help="What to look for.")] = "",
    brand: Annotated[list[str] | None, typer.Option(help="Only these brands.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only below these categories.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only with this value.")] = None,
    facet: Annotated[list[str] | None, typer.Option(help="Attributes to count values of.")] = None,
    in_stock: Annotated[bool, typer.Option("--in-stock", help="Only what can be bought now.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many hits.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Say for every hit where its score comes from.")] = False,
    json: JsonOption = False,
) -> None:
    """Search the products, with facets."""
    wanted: dict[str, list[str]] = {}
    for pair in attribute or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--attribute {pair}: write it as NAME=VALUE")
        wanted.setdefault(name, []).append(value)
    request = SearchProductsRequest(
        text=text,
        filter=SearchFilter(
            brands=brand or (),
            categories=category or (),
            attributes=[AttributeFilter(name=name, values=values) for name, values in wanted.items()],
            in_stock=in_stock,
        ),
        attribute_facets=facet or (),
        page_size=limit,
        explain=explain,
    )
    async with clients() as c:
        response = await c.search.SearchProducts(request, timeout=10)
    if json:
        orders.print_json(response)
    else:
        search.show(console, request, response)


@app.command("searches")
@asynchronous
async def list_searches(
    days: Annotated[int, typer.Option(min=1, max=30, help="Of so many days up to now.")] = 7,
    without_hits: Annotated[bool, typer.Option("--without-hits", help="Only what found nothing as typed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many texts.")] = 50,
    json: JsonOption = False,
) -> None:
    """List what was searched for, the most frequent first."""
    request = ListSearchedTextsRequest(days=days, without_hits=without_hits, page_size=limit)
    async with clients() as c:
        response = await c.search.ListSearchedTexts(request, timeout=10)
    if json:
        orders.print_json(response)
    else:
        search.show_searches(console, response)


@app.command("suggest")
@asynchronous
async def suggest(
    text: Annotated[str, typer.Argument(help="What was typed so far.")],
    json: JsonOption = False,
) -> None:
    """Complete what is being typed: searches, brands, categories, products."""
    async with clients() as c:
        response = await c.search.SuggestCompletions(SuggestCompletionsRequest(text=text), timeout=10)
    if json:
        orders.print_json(response)
        return
    table = Table("completion", "kind")
    for each in response.completions:
        kind = CompletionKind.Name(each.kind).removeprefix("COMPLETION_KIND_").lower()
        table.add_row(escape(each.text), kind)
    console.print(table)


@app.command()
@asynchronous
async def reindex(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Search the old index again, and keep this one.")
    ] = False,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Delete the old index.")] = False,
    json: JsonOption = False,
) -> None:
    """Build the search index anew beside the one that serves, and swap them once it has all.

    The services do it: Ctrl-C ends only the watching, and the same command watches again. Afterwards the old index is
    kept up to date until the next rebuild, or --drop-old.
    """
    if rollback and drop_old:
        raise ValueError("--rollback and --drop-old exclude each other")
    async with clients() as c:
        if rollback:
            now = await c.search.GetIndexStatus(GetIndexStatusRequest(), timeout=10)
            status = await c.search.RollbackIndex(RollbackIndexRequest(index=now.index), timeout=10)
        elif drop_old:
            status = await c.search.DropOldIndex(DropOldIndexRequest(), timeout=30)
        else:
            status = await watched_rebuild(c.search, json)
    if json:
        orders.print_json(status)
    else:
        old = f", {status.old_index} is kept" if status.old_index else ""
        text = f"searches read {status.index} ({status.products:,} products){old}"
        console.print(text, markup=False, soft_wrap=True)


async def watched_rebuild(service: "SearchServiceAsyncStub", quiet: bool) -> IndexStatus:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task("beginning", total=None)

        def show(status: IndexStatus) -> None:
            now = status.rebuild
            trouble = f": {now.trouble}" if now.trouble else ""
            progress.update(
                task,
                description=f"{now.index} {reindexing.step_name(now.step)}{trouble}",
                completed=now.entries,
                # The index grows while it is read.
                total=max(now.expected_entries, now.entries) or None,
            )

        try:
            status = await reindexing.rebuild(service, show)
        except reindexing.RebuildLost as error:
            fail(str(error))
            raise
        except asyncio.CancelledError:
            progress.stop()
            console.print("the rebuild goes on; `polymart reindex` watches it again")
            raise
    done = status.rebuild
    if not quiet:
        refused = f", {done.refused_entries:,} refused by the engine" if done.refused_entries else ""
        console.print(
            f"{done.entries:,} entries written and compared, {done.repaired_entries:,} mended{refused}; "
            f"digest {done.digest[:16]}",
            markup=False,
        )
    return status


@app.command("relevance")
@asynchronous
async def measure_relevance(
    products: Annotated[Path, typer.Option(help="As for import.", dir_okay=False)],
    queries: Annotated[Path, typer.Option(help="Table of query_id and query.", dir_okay=False)],
    labels: Annotated[Path, typer.Option(help="Table of query_id, product_id and label.", dir_okay=False)],
    engine: Annotated[SearchEngine | None, typer.Option(help="What is started for search.")] = None,
    typos: Annotated[int, typer.Option(min=0, max=100, help="Ask again so often with a typing error each.")] = 0,
) -> None:
    """Measure by judged queries how good search is, on a stack of its own; prints JSON."""
    judged = read_judged(queries, labels)
    products.open("rb").close()
    errors = Console(stderr=True)
    with errors.status("starting") as status:
        figures = await interruptible(
            relevance(
                default_home(),
                products,
                judged,
                environ=stack_environment(engine),
                typos=typos,
                on_progress=status.update,
            )
        )
    print_data({"engine": (engine or SearchEngine.OSMEM).value, **figures})


@app.command()
@asynchronous
async def trending(
    category: Annotated[str, typer.Option(help="Only below this category.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many products.")] = 10,
    json: JsonOption = False,
) -> None:
    """List what sells best, by the units of the last days' confirmed orders."""
    request = ListTrendingProductsRequest(category=category, page_size=limit)
    async with clients() as c:
        response = await c.search.ListTrendingProducts(request, timeout=10)
    if json:
        orders.print_json(response)
    else:
        search.show_trending(console, response)


@app.command("verify")
@asynchronous
async def verify_stores(
    json: JsonOption = False,
    wait: Annotated[float, typer.Option(min=0, help="Wait so many seconds until all is quiet first.")] = 30,
) -> None:
    """Check the invariants over all stores. Exit code 1 if one is broken, naming what breaks it."""
    info = running_stack()
    if wait:
        await quiet(info, wait, strict=False)
    report = await verify(info)
    if json:
        print_data(report.as_dict())
    else:
        report.print(console)
    if report.findings:
        raise typer.Exit(1)
