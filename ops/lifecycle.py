"""`polymart order`: call off, ship, report as delivered, take back; look after what is stuck; rebuild what is read."""

import getpass
import re
from datetime import datetime
from typing import Annotated
from uuid import uuid4

import typer
from polymart.order.v1 import order_service_pb2, shipment_service_pb2
from polymart.order.v1.order_pb2 import Order, OrderUnits
from polymart.order.v1.shipment_pb2 import Shipment
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.money import Money
from ops.clients import asynchronous, clients, console, first_of
from ops.orders import TIMEOUT, JsonOption, app, print_json, status_name

__all__ = ["app"]

_REBUILD_TIMEOUT = 3600.0

UnitsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[LINE=QUANTITY]…", help="Lines counted from 1; without any, all.")
]
OperatorOption = Annotated[
    str, typer.Option(help="Who does it.", show_default="your login", default_factory=getpass.getuser)
]
ReasonOption = Annotated[str, typer.Option(help="Why.")]
RequestOption = Annotated[str, typer.Option(help="UUID of this call, to repeat it safely.")]


@app.command()
@asynchronous
async def cancel(
    order_id: str,
    units: UnitsArgument = None,
    reason: ReasonOption = "",
    operator: Annotated[str, typer.Option(help="Who does it, if not the customer; needs a reason.")] = "",
    request_id: RequestOption = "",
    json: JsonOption = False,
) -> None:
    """Call off what isn't shipped yet of an order, or some of it."""
    request = order_service_pb2.CancelOrderRequest(
        order_id=order_id,
        request_id=request_id or str(uuid4()),
        lines=_units(units),
        reason=reason,
        operator=operator,
    )
    async with clients() as c:
        _told(await c.orders.CancelOrder(request, timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def ship(
    order_id: str,
    operator: OperatorOption,
    units: UnitsArgument = None,
    carrier: Annotated[str, typer.Option(help="Who carries it.")] = "",
    tracking_number: Annotated[str, typer.Option(help="The carrier's number of it.")] = "",
    request_id: RequestOption = "",
    json: JsonOption = False,
) -> None:
    """Ship what is left of an order, or some of it."""
    request = shipment_service_pb2.CreateShipmentRequest(
        order_id=order_id,
        request_id=request_id or str(uuid4()),
        lines=_units(units),
        carrier=carrier,
        tracking_number=tracking_number,
        operator=operator,
    )
    async with clients() as c:
        shipment = await c.shipments.CreateShipment(request, timeout=TIMEOUT)
    if json:
        print_json(shipment)
    else:
        console.print(f"shipment {shipment.shipment_id}: {_contents(shipment)}")
        console.print(f"when it arrived: polymart order deliver {shipment.shipment_id}", style="dim")


@app.command()
@asynchronous
async def deliver(shipment_id: str, operator: OperatorOption, json: JsonOption = False) -> None:
    """Note that a shipment arrived."""
    request = shipment_service_pb2.MarkShipmentDeliveredRequest(shipment_id=shipment_id, operator=operator)
    async with clients() as c:
        shipment = await c.shipments.MarkShipmentDelivered(request, timeout=TIMEOUT)
    if json:
        print_json(shipment)
    else:
        when = shipment.deliver_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
        console.print(f"delivered at {when}: {_contents(shipment)}")


@app.command()
@asynchronous
async def shipments(
    order_id: Annotated[str, typer.Argument(help="Only this order's.")] = "",
    under_way: Annotated[bool, typer.Option("--under-way", help="Only what hasn't arrived.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """List shipments, newest first."""
    request = shipment_service_pb2.ListShipmentsRequest(
        order_id=order_id, under_way=under_way, page_size=min(limit, 500)
    )
    async with clients() as c:
        found = await first_of(c.shipments.ListShipments, request, "shipments", limit, timeout=TIMEOUT)
    if json:
        for shipment in found:
            print_json(shipment, indent=None)
    else:
        show_shipments(console, found, of_one_order=bool(order_id))


def show_shipments(out: Console, found: list[Shipment], *, of_one_order: bool) -> None:
    """A table that leaves ids in one piece on 80 columns: of one order what is in each, of many whose each is."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("shipment", "shipped", "arrived", "units") if of_one_order else ("shipment", "order", "there"):
        table.add_column(name, no_wrap=name != "units", overflow="fold")
    for shipment in found:
        arrived = shipment.deliver_time.ToDatetime() if shipment.HasField("deliver_time") else None
        if of_one_order:
            times = [
                time.strftime("%m-%d %H:%M") if time else "–" for time in (shipment.ship_time.ToDatetime(), arrived)
            ]
            table.add_row(shipment.shipment_id, *times, _contents(shipment))
        else:
            table.add_row(shipment.shipment_id, shipment.order_id, "yes" if arrived else "–")
    out.print(table)


def _short(time: datetime | None) -> str:
    return time.strftime("%m-%d %H:%M") if time else "–"


@app.command("return")
@asynchronous
async def take_back(
    order_id: str,
    operator: OperatorOption,
    units: UnitsArgument = None,
    restock: Annotated[bool, typer.Option("--restock", help="They are fit for sale.")] = False,
    reason: ReasonOption = "",
    request_id: RequestOption = "",
    json: JsonOption = False,
) -> None:
    """Take back what was delivered of an order, or some of it: it is refunded."""
    request = order_service_pb2.ReturnOrderLinesRequest(
        order_id=order_id,
        request_id=request_id or str(uuid4()),
        lines=_units(units),
        restock=restock,
        reason=reason,
        operator=operator,
    )
    async with clients() as c:
        _told(await c.orders.ReturnOrderLines(request, timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def stuck(
    seconds: Annotated[int, typer.Option(min=1, help="That haven't moved for so long.")] = 300,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: JsonOption = False,
) -> None:
    """List orders that have waited long for stock or payment, and for what. Exit code 1 if there are any."""
    request = order_service_pb2.ListStuckOrdersRequest(waiting_seconds=seconds, page_size=min(limit, 500))
    async with clients() as c:
        found = await first_of(c.orders.ListStuckOrders, request, "orders", limit, timeout=TIMEOUT)
    if json:
        for one in found:
            print_json(one, indent=None)
    else:
        show_stuck(console, found)
    if found:
        raise typer.Exit(1)


def show_stuck(out: Console, found: list[order_service_pb2.StuckOrder]) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("order", "status", "waits since", "for"):
        table.add_column(name, no_wrap=name != "for", overflow="fold")
    for one in found:
        since = one.order.update_time.ToDatetime().strftime("%m-%d %H:%M:%S")
        waits = "; ".join(
            f"{wait.step}, which failed: {wait.failure}" if wait.failure else wait.step for wait in one.waits
        )
        table.add_row(one.order.order_id, status_name(one.order), since, escape(waits or "nothing"))
    out.print(table)


@app.command()
@asynchronous
async def retry(
    order_id: str,
    operator: OperatorOption,
    reason: Annotated[str, typer.Option(help="Why; kept in the order's history.")],
    json: JsonOption = False,
) -> None:
    """Ask once more all that an order waits for; a refund that failed is tried as a new one."""
    request = order_service_pb2.RetryOrderRequest(order_id=order_id, operator=operator, reason=reason)
    async with clients() as c:
        _told(await c.orders.RetryOrder(request, timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def rebuild(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare only.")] = False, json: JsonOption = False
) -> None:
    """Build what orders are listed from anew out of their events, compare, and put it in place of the old.

    With --dry-run the exit code is 1 if the two differ.
    """
    request = order_service_pb2.RebuildReadModelRequest(validate_only=dry_run)
    async with clients() as c:
        rebuilt = await c.orders.RebuildReadModel(request, timeout=_REBUILD_TIMEOUT)
    if json:
        print_json(rebuilt)
    else:
        done = "compared" if dry_run else "rebuilt"
        console.print(f"{rebuilt.order_count:,} orders {done}, {rebuilt.difference_count:,} differences")
        for difference in rebuilt.differences:
            console.print(difference, style="red", markup=False, soft_wrap=True)
    if dry_run and rebuilt.difference_count:
        raise typer.Exit(1)


def _units(texts: list[str] | None) -> list[OrderUnits]:
    return [_parsed(text) for text in texts or ()]


def _parsed(text: str) -> OrderUnits:
    if not re.fullmatch("[0-9]{1,4}=[0-9]{1,9}", text):
        raise ValueError(f"{text}: write it as LINE=QUANTITY, the line counted from 1")
    line, _, quantity = text.partition("=")
    return OrderUnits(line_number=int(line), quantity=int(quantity))


def _contents(shipment: Shipment) -> str:
    return ", ".join(f"{one.quantity} of line {one.line_number}" for one in shipment.units)


def _told(order: Order, json: bool) -> None:
    if json:
        print_json(order)
        return
    refunded = f", {Money.from_proto(order.refunded)} given back so far" if order.HasField("refunded") else ""
    console.print(f"{order.order_id}  {status_name(order)}{refunded}")
