"""Placing an order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chassis.clock import Clock
from chassis.ids import NewId
from order_svc.application.ports import Catalog, PlacedOrders, PriceList, Request
from order_svc.domain.order import Order, OrderPlaced
from order_svc.domain.pricing import Offer, Wanted, price, refuse_changes
from order_svc.domain.saga import Decision, place
from order_svc.domain.totals import Charges, Destination, Totals


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    request: Request
    lines: tuple[Wanted, ...]
    payment_token: str
    accept_price_changes: bool = False
    destination: Destination | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the shop decides about every order: its charges, and how long stock and payment may take."""

    charges: Charges
    patience: timedelta


async def place_order(
    command: PlaceOrder,
    *,
    orders: PlacedOrders,
    prices: PriceList,
    catalog: Catalog,
    clock: Clock,
    new_id: NewId,
    terms: Terms,
) -> Order:
    """Price the lines, start the saga, and return the order in PENDING. Idempotent by its request.

    Raises AlreadyExists for a request id that was used for another order, InvalidArgument for lines that can't be
    sold so, FailedPrecondition with the prices of now where others were expected, Unavailable where a price isn't known
    here and the catalog can't be asked.
    """
    if placed := await orders.placed_by(command.request):
        return placed
    offers = await current_offers([line.sku for line in command.lines], prices, catalog)
    return await orders.add(command.request, decide_order(command, offers, new_id(), clock.now(), terms))


def decide_order(
    command: PlaceOrder, offers: Mapping[str, Offer], order_id: str, now: datetime, terms: Terms
) -> Decision:
    """The order that `command` makes at these offers."""
    lines, _ = price(command.lines, offers)
    if not command.accept_price_changes:
        refuse_changes(command.lines, lines)
    destination = terms.charges.destination(command.destination)
    lines, shipping = terms.charges.apply(lines, [offers[line.sku].tax_class for line in lines], destination)
    placed = OrderPlaced(
        customer_id=command.request.customer_id,
        lines=lines,
        total=Totals.of(lines, shipping).gross,
        payment_token=command.payment_token,
        deadline=now + terms.patience,
        shipping=shipping,
        destination=destination,
    )
    return place(order_id, placed, now)


async def current_offers(skus: Sequence[str], prices: PriceList, catalog: Catalog) -> Mapping[str, Offer]:
    """What is sold now of these, by SKU; what isn't known here is asked of the catalog. Raises Unavailable."""
    wanted = dict.fromkeys(skus)
    known = dict(await prices.offers(wanted))
    if missing := wanted.keys() - known.keys():
        told = await catalog.offers(missing)
        await prices.remember(told)
        known.update((offer.sku, offer) for offer in told)
    return known
