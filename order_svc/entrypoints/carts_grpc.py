"""CartService: requests checked and mapped to the use cases, carts mapped back."""

from typing import Any

import grpc
from polymart.order.v1 import cart_pb2, cart_service_pb2_grpc, order_pb2
from polymart.order.v1 import cart_service_pb2 as pb

from chassis.postgres import Transaction
from chassis.rpc.validation import Validator
from order_svc.application.carts import CartDesk, ShownCart
from order_svc.domain.cart import CartLine, Notice
from order_svc.domain.pricing import Wanted
from order_svc.entrypoints.checks import (
    LONGEST_ID,
    LONGEST_TOKEN,
    MOST_LINES,
    check_destination,
    check_lines,
    check_text,
)
from order_svc.wire import destination_from_proto, destination_to_proto, order_to_proto, timestamp, totals_to_proto

_NOTICE = {notice: cart_pb2.CartLineNotice.Value(f"CART_LINE_NOTICE_{notice}") for notice in Notice}

Context = grpc.aio.ServicerContext[object, object]


class CartServicer(cart_service_pb2_grpc.CartServiceServicer):
    def __init__(self, desk: CartDesk[Transaction]):
        self._desk = desk

    async def CreateCart(self, request: pb.CreateCartRequest, context: Context) -> cart_pb2.Cart:
        check = Validator(request)
        check_text(check, request.customer_id, "customer_id", LONGEST_ID)
        check_destination(check, request.destination)
        check.done()
        return _to_proto(await self._desk.create(request.customer_id, destination_from_proto(request)))

    async def GetCart(self, request: pb.GetCartRequest, context: Context) -> cart_pb2.Cart:
        Validator(request).done()
        return _to_proto(await self._desk.get(request.cart_id))

    async def SetCartLines(self, request: pb.SetCartLinesRequest, context: Context) -> cart_pb2.Cart:
        check = _check(request)
        check_lines(check, request.lines)
        seen: set[str] = set()
        for index, line in enumerate(request.lines):
            check.check(line.sku not in seen, f"lines[{index}].sku", "stands on an earlier line")
            seen.add(line.sku)
        check.done()
        wanted = [Wanted(line.sku, line.quantity) for line in request.lines]
        return _to_proto(await self._desk.set_lines(request.cart_id, wanted, request.etag))

    async def RemoveCartLines(self, request: pb.RemoveCartLinesRequest, context: Context) -> cart_pb2.Cart:
        check = _check(request)
        check.check(len(request.skus) <= MOST_LINES, "skus", f"must be at most {MOST_LINES}")
        for index, sku in enumerate(request.skus):
            check_text(check, sku, f"skus[{index}]", LONGEST_ID)
        check.done()
        return _to_proto(await self._desk.remove_lines(request.cart_id, request.skus, request.etag))

    async def ApplyCustomer(self, request: pb.ApplyCustomerRequest, context: Context) -> cart_pb2.Cart:
        check = _check(request)
        check_text(check, request.customer_id, "customer_id", LONGEST_ID)
        check_destination(check, request.destination)
        check.done()
        destination = destination_from_proto(request)
        cart_id = request.cart_id
        return _to_proto(await self._desk.apply_customer(cart_id, request.customer_id, destination, request.etag))

    async def RefreshCart(self, request: pb.RefreshCartRequest, context: Context) -> cart_pb2.Cart:
        _check(request).done()
        return _to_proto(await self._desk.refresh(request.cart_id, request.etag))

    async def CheckoutCart(self, request: pb.CheckoutCartRequest, context: Context) -> order_pb2.Order:
        check = _check(request)
        check_text(check, request.payment_token, "payment_token", LONGEST_TOKEN)
        check.done()
        order = await self._desk.checkout(
            request.cart_id,
            request.payment_token,
            accept_price_changes=request.accept_price_changes,
            etag=request.etag,
        )
        return order_to_proto(order)


def _check(request: Any) -> Validator:
    check = Validator(request)
    check_text(check, request.etag, "etag", LONGEST_ID)
    return check


def _to_proto(shown: ShownCart) -> cart_pb2.Cart:
    cart, totals = shown.cart, shown.totals
    return cart_pb2.Cart(
        cart_id=cart.cart_id,
        customer_id=cart.customer_id,
        lines=[_line_to_proto(line, shown) for line in cart.lines.values()],
        totals=totals_to_proto(totals) if totals else None,
        total=totals.gross.to_proto() if totals else None,
        destination=destination_to_proto(cart.destination),
        order_id=cart.order_id,
        etag=cart.etag,
        create_time=timestamp(cart.create_time),
        update_time=timestamp(cart.update_time),
        expire_time=timestamp(cart.expire_time),
    )


def _line_to_proto(line: CartLine, shown: ShownCart) -> cart_pb2.CartLine:
    notice = shown.notices.get(line.sku)
    new = shown.offers[line.sku].price if notice in (Notice.PRICE_CHANGED, Notice.OTHER_CURRENCY) else None
    return cart_pb2.CartLine(
        sku=line.sku,
        quantity=line.quantity,
        unit_price=line.price.to_proto(),
        product_name=line.product_name,
        product_id=line.product_id,
        notice=_NOTICE[notice] if notice else cart_pb2.CART_LINE_NOTICE_UNSPECIFIED,
        new_unit_price=new.to_proto() if new else None,
    )
