"""Carts: edits take turns at the cart's row, and checkout is PlaceOrder in the transaction that closes the cart."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Generic

from chassis.clock import Clock
from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from chassis.ids import NewId, derived_id
from order_svc.application.placing import PlaceOrder, Terms, current_offers, decide_order
from order_svc.application.ports import Carts, Catalog, CheckedOutOrders, PriceList, Request, Tx
from order_svc.domain.cart import Cart, Notice
from order_svc.domain.order import Order
from order_svc.domain.pricing import Offer, Wanted, price
from order_svc.domain.saga import Decision
from order_svc.domain.totals import Destination, Totals

# More than edits come in at once: each that adds a SKU costs one.
_CHECKOUT_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class ShownCart:
    """A cart beside the offers of now. `totals` are what an order of it would cost, None where there can't be one."""

    cart: Cart
    notices: Mapping[str, Notice]
    offers: Mapping[str, Offer]
    totals: Totals | None


@dataclass(frozen=True, slots=True)
class CartDesk(Generic[Tx]):
    """The use cases of carts and what they need. `life` is how long a cart is kept after its last edit."""

    carts: Carts[Tx]
    orders: CheckedOutOrders[Tx]
    prices: PriceList
    catalog: Catalog
    clock: Clock
    new_id: NewId
    terms: Terms
    life: timedelta

    async def create(self, customer_id: str, destination: Destination | None) -> ShownCart:
        now = self.clock.now()
        cart = Cart(self.new_id(), customer_id, destination, now, now, now + self.life, {})
        await self.carts.add(cart)
        return self._shown(cart, {})

    async def get(self, cart_id: str) -> ShownCart:
        """Raises NotFound."""
        cart = self._alive(cart_id, await self.carts.find(cart_id))
        return self._shown(cart, {} if cart.order_id else await self._offers(cart.lines))

    async def set_lines(self, cart_id: str, wanted: Sequence[Wanted], etag: str) -> ShownCart:
        """Raises NotFound, InvalidArgument, FailedPrecondition, Aborted."""
        offers = await self._offers([want.sku for want in wanted])
        return await self._edit(cart_id, etag, lambda cart: cart.with_lines(wanted, offers))

    async def remove_lines(self, cart_id: str, skus: Sequence[str], etag: str) -> ShownCart:
        return await self._edit(cart_id, etag, lambda cart: cart.without(skus))

    async def apply_customer(
        self, cart_id: str, customer_id: str, destination: Destination | None, etag: str
    ) -> ShownCart:
        return await self._edit(cart_id, etag, lambda cart: cart.of_customer(customer_id, destination))

    async def refresh(self, cart_id: str, etag: str) -> ShownCart:
        """Accept the prices of now; the notices are those of before."""
        cart = self._alive(cart_id, await self.carts.find(cart_id))
        offers = await self._offers(cart.lines)
        before: list[Cart] = []

        def refreshed(cart: Cart) -> Cart:
            before.append(cart)
            return cart.refreshed(offers)

        shown = await self._edit(cart_id, etag, refreshed)
        return replace(shown, notices=before[-1].notices(shown.offers))

    async def checkout(self, cart_id: str, payment_token: str, *, accept_price_changes: bool, etag: str) -> Order:
        """Place the order of what is in the cart; the order it became, if it did before.

        Raises NotFound, FailedPrecondition (also with the prices of now), InvalidArgument, Unavailable, Aborted.
        """
        for _ in range(_CHECKOUT_ATTEMPTS):
            cart = self._alive(cart_id, await self.carts.find(cart_id))
            if cart.order_id:
                return await self.orders.get(cart.order_id)
            # Asked before the cart is locked: the catalog may take its time.
            asked, offers = cart.lines.keys(), await self._offers(cart.lines)
            async with self.carts.transaction() as tx:
                cart = self._alive(cart_id, await self.carts.locked(cart_id, tx=tx))
                if not cart.order_id and cart.editable(etag).lines.keys() <= asked:
                    command = _order_of(cart, payment_token, accept_price_changes)
                    decision = self._decided(command, offers)
                    order = await self.orders.add(command.request, decision, tx=tx)
                    closed = replace(cart, order_id=order.order_id, version=cart.version + 1)
                    await self.carts.save(cart, closed, tx=tx)
                    return order
        raise Aborted(f"cart {cart_id} is being edited all the time; try again")

    def _decided(self, command: PlaceOrder, offers: Mapping[str, Offer]) -> Decision:
        try:
            return decide_order(command, offers, self.new_id(), self.clock.now(), self.terms)
        except InvalidArgument as error:
            # Nothing is wrong with the request: it is the cart that can't be ordered.
            raise FailedPrecondition(str(error), reason="CART_NOT_SOLD", violations=error.violations) from error

    async def expire(self, limit: int = 500) -> int:
        """Drop up to `limit` carts whose time is over; returns how many. Replicas share the work."""
        return await self.carts.drop_expired(self.clock.now(), limit=limit)

    async def _edit(self, cart_id: str, etag: str, edit: Callable[[Cart], Cart]) -> ShownCart:
        now = self.clock.now()
        async with self.carts.transaction() as tx:
            before = self._alive(cart_id, await self.carts.locked(cart_id, tx=tx)).editable(etag)
            after = edit(before)
            after = replace(after, version=before.version + 1, update_time=now, expire_time=now + self.life)
            await self.carts.save(before, after, tx=tx)
        return self._shown(after, await self._offers(after.lines))

    def _alive(self, cart_id: str, cart: Cart | None) -> Cart:
        if cart is None or cart.expire_time <= self.clock.now():
            raise NotFound(f"no cart {cart_id}, or it expired", reason="CART_NOT_FOUND")
        return cart

    async def _offers(self, skus: Sequence[str] | Mapping[str, object]) -> Mapping[str, Offer]:
        return await current_offers(list(skus), self.prices, self.catalog) if skus else {}

    def _shown(self, cart: Cart, offers: Mapping[str, Offer]) -> ShownCart:
        totals = None
        if cart.lines and not cart.order_id:
            try:
                lines, _ = price(cart.wanted(), offers)
                charges = self.terms.charges
                classes = [offers[line.sku].tax_class for line in lines]
                totals = Totals.of(*charges.apply(lines, classes, charges.destination(cart.destination)))
            except (InvalidArgument, FailedPrecondition):
                totals = None
        return ShownCart(cart, cart.notices(offers) if not cart.order_id else {}, offers, totals)


def _order_of(cart: Cart, payment_token: str, accept_price_changes: bool) -> PlaceOrder:
    """A cart is one request, whoever checks it out however often."""
    request_id = derived_id("cart", cart.cart_id)
    request = Request(cart.customer_id, request_id, hashlib.sha256(cart.cart_id.encode()).digest())
    return PlaceOrder(request, cart.wanted(), payment_token, accept_price_changes, cart.destination)
