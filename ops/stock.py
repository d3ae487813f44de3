"""`polymart stock`: explain a SKU's stock, change it, and list reservations that stay open."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from polymart.inventory.v1 import inventory_service_pb2 as pb
from polymart.inventory.v1.location_pb2 import Location
from polymart.inventory.v1.movement_pb2 import Movement, MovementKind
from polymart.inventory.v1.reservation_pb2 import Reservation
from polymart.inventory.v1.stock_pb2 import Availability, StockLevel
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from chassis.ids import uuid7
from ops.clients import Clients, asynchronous, clients, console, first_of, pages, print_data, problems
from ops.orders import TIMEOUT, JsonOption

if TYPE_CHECKING:
    from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceAsyncStub

app = typer.Typer(
    no_args_is_help=True, help="Explain stock (what there is, what is held for whom, what moved), and change it."
)

_PAGE = 500
_OLDEST = timedelta(days=36_500)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Changed = Annotated[str, typer.Argument(help="The SKU whose stock changes.")]
At = Annotated[str, typer.Option(help="The location; main if left out.")]
RequestId = Annotated[
    str, typer.Option(help="A UUID of this change: given again, it changes nothing. Made and shown if left out.")
]
OlderThan = Annotated[str, typer.Option(metavar="AGE", help="Only those older than that: 90s, 30m, 2h, 1d.")]


@app.command()
@asynchronous
async def show(
    sku: Annotated[str, typer.Argument(help="The SKU to explain.")],
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="At most so many reservations and movements.")] = 10,
    json: JsonOption = False,
) -> None:
    """Show a SKU's units by location, the oldest open reservations of it and its last movements."""
    async with clients() as c:
        level = await c.inventory.GetStock(pb.GetStockRequest(sku=sku), timeout=TIMEOUT)
        reservations = await open_reservations(c, pb.ListReservationsRequest(sku=sku), limit + 1)
        movements = await c.inventory.ListMovements(pb.ListMovementsRequest(sku=sku, page_size=limit), timeout=TIMEOUT)
    if json:
        held = [_data(reservation) for reservation in reservations[:limit]]
        print_data({"level": _data(level), "reservations": held, "movements": list(map(_data, movements.movements))})
        return
    show_level(console, level)
    show_held(console, sku, reservations[:limit], more=len(reservations) > limit)
    show_movements(console, movements.movements, more=bool(movements.next_page_token))


@app.command()
@asynchronous
async def receive(
    sku: Changed,
    units: Annotated[int, typer.Argument(min=1, help="So many came in.")],
    reason: Annotated[str, typer.Option(help="What they came with: a delivery note, say.")] = "",
    location: At = "",
    request_id: RequestId = "",
    json: JsonOption = False,
) -> None:
    """Take in units that were bought, and show what there is then."""
    receipt = pb.StockReceipt(sku=sku, quantity=units, location_id=location)
    request = pb.ReceiveStockRequest(receipts=[receipt], reference=reason, request_id=_request_id(request_id))
    async with clients() as c:
        (level,) = (await c.inventory.ReceiveStock(request, timeout=TIMEOUT)).levels
    print_data(_data(level)) if json else show_level(console, level)


@app.command(context_settings={"ignore_unknown_options": True})  # a number below 0 is none
@asynchronous
async def adjust(
    sku: Changed,
    units: Annotated[int, typer.Argument(help="So many to add or, below 0, to take.")],
    reason: Annotated[str, typer.Option(help="Why: it stays with the movement.")],
    location: At = "",
    request_id: RequestId = "",
    json: JsonOption = False,
) -> None:
    """Add units or take them away, for a reason, and show what there is then."""
    adjustment = pb.StockAdjustment(sku=sku, delta=units, reason=reason, location_id=location)
    request = pb.AdjustStockRequest(adjustments=[adjustment], request_id=_request_id(request_id))
    async with clients() as c:
        (level,) = (await c.inventory.AdjustStock(request, timeout=TIMEOUT)).levels
    print_data(_data(level)) if json else show_level(console, level)


@app.command()
@asynchronous
async def reservations(
    older_than: OlderThan = "0s",
    sku: Annotated[str, typer.Option(help="Only those that hold this SKU.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    json: JsonOption = False,
) -> None:
    """List open reservations, the oldest first. Only its order frees one: look there with `polymart order show`."""
    request = pb.ListReservationsRequest(sku=sku)
    request.created_before.FromDatetime(datetime.now(UTC) - age(older_than))
    async with clients() as c:
        found = await open_reservations(c, request, limit + 1)
    if json:
        print_data([_data(reservation) for reservation in found[:limit]])
        return
    table = Table(Column("order", no_wrap=True), "since", "units", "SKUs", "locations")
    for one in found[:limit]:
        units = sum(a.quantity for a in one.allocations)
        skus = _some(sorted({a.sku for a in one.allocations}))
        locations = _some(sorted({a.location_id for a in one.allocations}))
        table.add_row(escape(one.order_id), _time(one.create_time), str(units), skus, locations)
    if len(found) > limit:
        table.add_row("…", "", "", "", "")
    console.print(table if found else "no open reservations")


@app.command()
@asynchronous
async def locations(json: JsonOption = False) -> None:
    """List the locations in the order in which orders are served from them."""
    async with clients() as c:
        found = await all_locations(c.inventory)
    if json:
        print_data([_data(location) for location in found])
        return
    table = Table("location", "name", "priority")
    for location in found:
        table.add_row(escape(location.location_id), escape(location.display_name), str(location.priority))
    console.print(table)


async def all_locations(inventory: "InventoryServiceAsyncStub") -> list[Location]:
    request = pb.ListLocationsRequest(page_size=_PAGE)
    return [
        location
        async for page in pages(inventory.ListLocations, request, timeout=TIMEOUT)
        for location in page.locations
    ]


async def open_reservations(c: Clients, request: pb.ListReservationsRequest, limit: int) -> list[Reservation]:
    """Pages of them, together `limit` at most."""
    request.page_size = min(limit, _PAGE)
    return await first_of(c.inventory.ListReservations, request, "reservations", limit, timeout=TIMEOUT)


def _request_id(given: str) -> str:
    """The id of a change. One that is made is told before the call: an answer may get lost, and the change not."""
    if not given:
        given = uuid7()
        problems.print(f"request id {given}", style="dim", soft_wrap=True)
    return given


def age(text: str) -> timedelta:
    """Raises ValueError for what isn't a number and a unit, or is too old."""
    if not (match := re.fullmatch(r"([0-9]{1,6})([smhd])", text)):
        raise ValueError(f"{text}: write an age as 90s, 30m, 2h or 1d")
    found = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if found > _OLDEST:
        raise ValueError(f"{text}: nothing is older than {_OLDEST.days}d")
    return found


def show_level(out: Console, level: StockLevel) -> None:
    state = Availability.Name(level.availability).removeprefix("AVAILABILITY_")
    table = Table("location", title=f"SKU {escape(level.sku)}: {state}", title_justify="left")
    for name in ("on hand", "reserved", "safety stock", "available"):
        table.add_column(name, justify="right")
    for at in level.locations:
        table.add_row(escape(at.location_id), str(at.on_hand), str(at.reserved), "", str(at.available))
    table.add_section()
    units = (level.on_hand, level.reserved, level.safety_stock, level.available)
    table.add_row("in total", *map(str, units))
    out.print(table)
    out.print(f"low with {level.low_stock} available or fewer; flip {level.availability_version}", style="dim")


def show_held(out: Console, sku: str, reservations: Sequence[Reservation], *, more: bool) -> None:
    table = Table(
        Column("order", no_wrap=True),
        "since",
        "held",
        title="open reservations, the oldest first",
        title_justify="left",
    )
    for one in reservations:
        held = ", ".join(f"{a.quantity} at {a.location_id}" for a in one.allocations if a.sku == sku)
        table.add_row(escape(one.order_id), _time(one.create_time), escape(held))
    if more:
        table.add_row("…", "", "")
    out.print(table if reservations else "no open reservations")


def show_movements(out: Console, movements: Sequence[Movement], *, more: bool) -> None:
    table = Table("time", "what", "location", title="movements, the newest first", title_justify="left")
    for name in ("on hand", "reserved"):
        table.add_column(name, justify="right")
    table.add_column("for")
    for one in movements:
        kind = MovementKind.Name(one.kind).removeprefix("MOVEMENT_KIND_")
        about = f"order {one.order_id}" if one.order_id else one.reason
        deltas = (_delta(one.on_hand_delta), _delta(one.reserved_delta))
        table.add_row(_time(one.create_time), kind, escape(one.location_id), *deltas, escape(about))
    if more:
        table.add_row("…", "", "", "", "", "")
    out.print(table if movements else "no movements")


def _delta(units: int) -> str:
    return f"{units:+}" if units else ""


def _time(moment: Timestamp) -> str:
    return moment.ToDatetime().isoformat(sep=" ", timespec="seconds")


def _some(names: Sequence[str], most: int = 3) -> str:
    return escape(", ".join(names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _data(message: Message) -> object:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
