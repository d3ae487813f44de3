"""`polymart cart`: fill a cart and check it out."""

from typing import Annotated

import typer
from polymart.order.v1 import cart_service_pb2 as pb
from polymart.order.v1.cart_pb2 import Cart, CartLineNotice
from rich.markup import escape
from rich.table import Table

from chassis.money import Money
from ops.clients import asynchronous, clients, console
from ops.orders import TIMEOUT, JsonOption, order_line, print_json, status_name

app = typer.Typer(no_args_is_help=True, help="Fill a cart and check it out.")


@app.command()
@asynchronous
async def create(
    customer: Annotated[str, typer.Option(help="Customer id; a guest without.")] = "", json: JsonOption = False
) -> None:
    """Make an empty cart."""
    async with clients() as c:
        _show(await c.carts.CreateCart(pb.CreateCartRequest(customer_id=customer), timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def show(cart_id: str, json: JsonOption = False) -> None:
    """Show a cart at the prices of now."""
    async with clients() as c:
        _show(await c.carts.GetCart(pb.GetCartRequest(cart_id=cart_id), timeout=TIMEOUT), json)


@app.command("set")
@asynchronous
async def set_lines(
    cart_id: str,
    lines: Annotated[list[str], typer.Argument(metavar="SKU[=QUANTITY]…", help="What is to be in it.")],
    json: JsonOption = False,
) -> None:
    """Set how many of each SKU are in a cart."""
    wanted = [pb.SetCartLine(sku=sku, quantity=quantity) for sku, quantity in map(order_line, lines)]
    async with clients() as c:
        request = pb.SetCartLinesRequest(cart_id=cart_id, lines=wanted)
        _show(await c.carts.SetCartLines(request, timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def remove(cart_id: str, skus: list[str], json: JsonOption = False) -> None:
    """Take SKUs out of a cart."""
    async with clients() as c:
        request = pb.RemoveCartLinesRequest(cart_id=cart_id, skus=skus)
        _show(await c.carts.RemoveCartLines(request, timeout=TIMEOUT), json)


@app.command()
@asynchronous
async def checkout(
    cart_id: str,
    token: Annotated[str, typer.Option(help="Payment token.")] = "tok_approved",
    accept_price_changes: Annotated[bool, typer.Option(help="Order at the prices of now.")] = False,
    json: JsonOption = False,
) -> None:
    """Order what is in a cart; done again it shows the same order."""
    request = pb.CheckoutCartRequest(cart_id=cart_id, payment_token=token, accept_price_changes=accept_price_changes)
    async with clients() as c:
        order = await c.carts.CheckoutCart(request, timeout=TIMEOUT)
    if json:
        print_json(order)
    else:
        console.print(f"{order.order_id}  {status_name(order)}  {Money.from_proto(order.total)}")


def _show(cart: Cart, json: bool) -> None:
    if json:
        print_json(cart)
        return
    whose, became = cart.customer_id or "guest", f", became order {cart.order_id}" if cart.order_id else ""
    table = Table(title=escape(f"cart {cart.cart_id} of {whose}{became}"), title_justify="left")
    for name in ("sku", "product", "quantity", "price", "notice"):
        table.add_column(name, justify="left" if name in ("sku", "product", "notice") else "right")
    for line in cart.lines:
        notice = CartLineNotice.Name(line.notice).removeprefix("CART_LINE_NOTICE_").lower() if line.notice else ""
        if line.HasField("new_unit_price"):
            notice += f": {Money.from_proto(line.new_unit_price)} now"
        price = str(Money.from_proto(line.unit_price))
        table.add_row(escape(line.sku), escape(line.product_name), str(line.quantity), price, notice)
    if cart.HasField("total"):
        table.add_section()
        table.add_row("", "", "", str(Money.from_proto(cart.total)), "with taxes and shipping")
    console.print(table)
