"""Placing an order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from chassis.clock import Clock
from chassis.ids import NewId
from order_svc.application.ports import Catalog, PlacedOrders, PriceList, Request
from order_svc.domain.order import Order, OrderPlaced
from order_svc.domain.pricing import Offer, Wanted, price
from order_svc.domain.saga import place


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    request: Request
    lines: tuple[Wanted, ...]
    payment_token: str


async def place_order(
    command: PlaceOrder,
    *,
    orders: PlacedOrders,
    prices: PriceList,
    catalog: Catalog,
    clock: Clock,
    new_id: NewId,
    patience: timedelta,
) -> Order:
    """Price the lines, start the saga, and return the order in PENDING. Idempotent by its request.

    Raises AlreadyExists for a request id that was used for another order, InvalidArgument for lines that can't be
    sold so, Unavailable where a price isn't known here and the catalog can't be asked.
    """
    if placed := await orders.placed_by(command.request):
        return placed
    offers = await _offers([line.sku for line in command.lines], prices, catalog)
    lines, total = price(command.lines, offers)
    now = clock.now()
    placed_now = OrderPlaced(command.request.customer_id, lines, total, command.payment_token, now + patience)
    return await orders.add(command.request, place(new_id(), placed_now, now))


async def _offers(skus: Sequence[str], prices: PriceList, catalog: Catalog) -> Mapping[str, Offer]:
    wanted = dict.fromkeys(skus)
    known = dict(await prices.offers(wanted))
    if missing := wanted.keys() - known.keys():
        told = await catalog.offers(missing)
        await prices.remember(told)
        known.update((offer.sku, offer) for offer in told)
    return known
