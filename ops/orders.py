"""`polymart order`: place, show, watch and list orders; what is done with them later is in `lifecycle.py`."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import uuid4

import typer
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message
from google.protobuf.symbol_database import Default
from polymart.order.v1 import events_pb2, order_service_pb2
from polymart.order.v1.order_pb2 import Order, OrderFailureReason, OrderStatus
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.money import Money
from ops.clients import asynchronous, clients, console, first_of, follow

TIMEOUT = 10.0
_AMOUNTS = ("total", "refund", "refunded", "amount")
assert events_pb2.DESCRIPTOR  # registers the types that a history holds

app = typer.Typer(no_args_is_help=True, help="Place, show, list and follow orders, and see them through.")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def status_name(order: Order) -> str:
    name = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")
    return f"{name} (settled)" if order.settled else name


def reason_name(order: Order) -> str:
    """CONFIRMED, or why not."""
    if order.HasField("failure"):
        return OrderFailureReason.Name(order.failure.reason).removeprefix("ORDER_FAILURE_REASON_")
    return OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_")


@app.command()
@asynchronous
async def place(
    lines: Annotated[list[str], typer.Argument(metavar="SKU[=QUANTITY]…", help="What to order.")],
    customer: Annotated[str, typer.Option(help="Customer id; a guest without.")] = "",
    token: Annotated[str, typer.Option(help="Payment token.")] = "tok_approved",
    request_id: Annotated[str, typer.Option(help="UUID of this order, to repeat it safely.")] = "",
    json: JsonOption = False,
) -> None:
    """Place an order and answer at once."""
    request = order_service_pb2.PlaceOrderRequest(
        request_id=request_id or str(uuid4()),
        customer_id=customer,
        lines=[order_service_pb2.PlaceOrderLine(sku=s, quantity=q) for s, q in map(order_line, lines)],
        payment_token=token,
    )
    async with clients() as c:
        order = await c.orders.PlaceOrder(request, timeout=TIMEOUT)
    if json:
        print_json(order)
    else:
        console.print(f"{order.order_id}  {status_name(order)}  {Money.from_proto(order.total)}")
        console.print(f"follow it with: polymart order watch {order.order_id}", style="dim")


def order_line(text: str) -> tuple[str, int]:
    """SKU and quantity of SKU[=QUANTITY]. Raises ValueError."""
    sku, _, quantity = text.rpartition("=") if "=" in text else (text, "", "1")
    if not re.fullmatch("-?[0-9]{1,9}", quantity):
        raise ValueError(f"{text}: the quantity after = must be a whole number of up to nine digits")
    return sku, int(quantity)


@app.command()
@asynchronous
async def show(order_id: str, json: JsonOption = False) -> None:
    """Show an order and all that happened to it."""
    async with clients() as c:
        order = await c.orders.GetOrder(order_service_pb2.GetOrderRequest(order_id=order_id), timeout=TIMEOUT)
        history = await c.orders.GetOrderHistory(
            order_service_pb2.GetOrderHistoryRequest(order_id=order_id), timeout=TIMEOUT
        )
    if json:
        print_json(order)
        return
    show_order(console, order)
    show_history(console, history)


@app.command()
@asynchronous
async def watch(order_id: str, json: JsonOption = False) -> None:
    """Follow an order until nothing is left to do for it."""
    async with clients() as c:
        async for order in follow(c, order_id):
            if json:
                print_json(order, indent=None)
            else:
                failure = f"  {order.failure.message}" if order.HasField("failure") else ""
                when = order.update_time.ToDatetime().isoformat(timespec="milliseconds")
                console.print(f"{when}  v{order.version}  {status_name(order)}{failure}", markup=False)


@app.command("list")
@asynchronous
async def list_orders(
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    status: Annotated[str, typer.Option(help="Only in this status, such as PENDING or SHIPPED.")] = "",
    placed_from: Annotated[datetime | None, typer.Option("--from", help="Only placed then (UTC) or later.")] = None,
    placed_before: Annotated[datetime | None, typer.Option("--before", help="Only placed before then (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """List orders, newest first; … after a status says that something is left to do for the order."""
    names = [n.removeprefix("ORDER_STATUS_") for n in OrderStatus.keys()[1:]]
    if status and status.upper() not in names:
        raise ValueError(f"--status must be one of {', '.join(names)}")
    request = order_service_pb2.ListOrdersRequest(
        customer_id=customer,
        page_size=min(limit, 500),
        status=OrderStatus.Value(f"ORDER_STATUS_{status.upper() or 'UNSPECIFIED'}"),
    )
    if placed_from:
        request.placed_from.FromDatetime(placed_from)
    if placed_before:
        request.placed_before.FromDatetime(placed_before)
    async with clients() as c:
        orders = await first_of(c.orders.ListOrders, request, "orders", limit, timeout=TIMEOUT)
    if json:
        for order in orders:
            print_json(order, indent=None)
        return
    show_orders(console, orders)


def show_orders(out: Console, orders: Sequence[Order]) -> None:
    """A table that leaves ids, which people copy, in one piece on 80 columns; long customers are folded."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("order", "placed", "customer", "status", "total"):
        table.add_column(name, no_wrap=name != "customer", overflow="fold")
    for order in orders:
        placed = order.place_time.ToDatetime().strftime("%m-%d %H:%M")
        status = OrderStatus.Name(order.status).removeprefix("ORDER_STATUS_") + ("" if order.settled else "…")
        total = str(Money.from_proto(order.total))
        table.add_row(order.order_id, placed, escape(order.customer_id or "guest"), status, total)
    out.print(table)


def print_json(message: Message, indent: int | None = 2) -> None:
    typer.echo(MessageToJson(message, indent=indent, preserving_proto_field_name=True))


def show_order(out: Console, order: Order, most: int = 8) -> None:
    table = Table(title=f"order {order.order_id}: {status_name(order)}", title_justify="left")
    for name in ("sku", "product", "quantity", "price", "total"):
        table.add_column(name, justify="left" if name in ("sku", "product") else "right")
    for line in order.lines[:most]:
        price, total = Money.from_proto(line.unit_price), Money.from_proto(line.line_total)
        table.add_row(escape(line.sku), escape(line.product_name), str(line.quantity), str(price), str(total))
    if len(order.lines) > most:
        table.add_row("…", f"{len(order.lines) - most} more lines", "", "", "")
    table.add_section()
    totals = order.totals
    for name, amount in (("tax", totals.tax), ("shipping", totals.shipping), ("tax on shipping", totals.shipping_tax)):
        if amount.units or amount.nanos:
            table.add_row("", name, "", "", str(Money.from_proto(amount)))
    table.add_row("", "", "", "", str(Money.from_proto(order.total)))
    out.print(table)
    if order.HasField("failure"):
        out.print(f"{reason_name(order)}: {order.failure.message}", markup=False)


def show_history(out: Console, history: order_service_pb2.GetOrderHistoryResponse) -> None:
    table = Table("v", "time", "event", "who: why: what it says")
    for entry in history.entries:
        cause = entry.cause.rpartition(".")[2]
        when = entry.time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
        name = entry.event.TypeName().rpartition(".")[2]
        told = ": ".join(part for part in (entry.actor, cause, _facts(entry.event)) if part)
        table.add_row(str(entry.version), when, name, escape(told))
    out.print(table)


def _facts(event: AnyMessage) -> str:
    message: Any = Default().GetSymbol(event.TypeName())()
    event.Unpack(message)
    facts = MessageToDict(message, preserving_proto_field_name=True)
    parts = []
    for name, value in facts.items():
        if name in ("order_id", "order_version"):
            continue
        if name == "totals":
            continue
        if name in _AMOUNTS:
            value = Money.from_proto(getattr(message, name))
        elif name == "destination":
            value = "-".join(value.values())
        elif name == "lines":
            value = len(value)
        elif name == "units":
            value = " ".join(f"{one.line_number}={one.quantity}" for one in message.units)
        elif name == "failure":
            value = value.get("message")
        parts.append(f"{name} {value}")
    return ", ".join(parts)
