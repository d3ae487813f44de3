"""The cart: what somebody means to order, at the prices they saw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from chassis.errors import FailedPrecondition, InvalidArgument, Violation, stale_etag
from chassis.money import Money
from order_svc.domain.pricing import Offer, Wanted
from order_svc.domain.totals import Destination

MOST_LINES = 1_000


class Notice(StrEnum):
    """What the buyer of a line has to be told."""

    PRICE_CHANGED = "PRICE_CHANGED"
    NOT_SOLD = "NOT_SOLD"
    OTHER_CURRENCY = "OTHER_CURRENCY"


@dataclass(frozen=True, slots=True)
class CartLine:
    """`price` is that of one unit when the line was set or a new one was accepted."""

    sku: str
    quantity: int
    price: Money
    product_id: str
    product_name: str


@dataclass(frozen=True, slots=True)
class Cart:
    """`version` counts the edits from 1. With an `order_id` it is closed."""

    cart_id: str
    customer_id: str
    destination: Destination | None
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    lines: Mapping[str, CartLine]  # by SKU, in the order they came in
    version: int = 1
    order_id: str = ""

    @property
    def etag(self) -> str:
        return str(self.version)

    def editable(self, etag: str) -> "Cart":
        """Itself. Raises FailedPrecondition for a closed cart, Aborted for an etag that isn't its own."""
        if self.order_id:
            raise FailedPrecondition(f"cart {self.cart_id} became order {self.order_id}", reason="CART_CLOSED")
        if etag and etag != self.etag:
            raise stale_etag("cart", self.cart_id)
        return self

    def with_lines(self, wanted: Sequence[Wanted], offers: Mapping[str, Offer]) -> "Cart":
        """With these quantities at these offers, others' lines untouched. Raises InvalidArgument with a violation for
        each line that can't be had so, FailedPrecondition over 1,000 lines."""
        set_now = {want.sku for want in wanted}
        kept = next((x.price.currency for x in self.lines.values() if x.sku not in set_now), None)
        violations: list[Violation] = []
        lines = dict(self.lines)
        for index, want in enumerate(wanted):
            if (offer := offers.get(want.sku)) is None:
                violations.append(Violation(f"lines[{index}].sku", f"no product has the SKU {want.sku}"))
            elif (kept := kept or offer.price.currency) != offer.price.currency:
                description = f"is sold in {offer.price.currency}, other lines in {kept}"
                violations.append(Violation(f"lines[{index}].sku", description))
            else:
                lines[want.sku] = _line(want.sku, want.quantity, offer)
        if violations:
            raise InvalidArgument(violations)
        if len(lines) > MOST_LINES:
            raise FailedPrecondition(f"a cart holds {MOST_LINES:,} lines at most", reason="CART_FULL")
        return replace(self, lines=lines)

    def without(self, skus: Iterable[str]) -> "Cart":
        gone = set(skus)
        return replace(self, lines={sku: line for sku, line in self.lines.items() if sku not in gone})

    def of_customer(self, customer_id: str, destination: Destination | None) -> "Cart":
        """Raises FailedPrecondition if it is another's."""
        if self.customer_id not in ("", customer_id):
            raise FailedPrecondition(f"cart {self.cart_id} is another customer's", reason="CART_TAKEN")
        return replace(self, customer_id=customer_id, destination=destination or self.destination)

    def refreshed(self, offers: Mapping[str, Offer]) -> "Cart":
        """With the prices of now; lines that can't be had stay as they were."""
        notices = self.notices(offers)
        lines = {
            sku: _line(sku, line.quantity, offers[sku]) if notices.get(sku) is Notice.PRICE_CHANGED else line
            for sku, line in self.lines.items()
        }
        return replace(self, lines=lines)

    def notices(self, offers: Mapping[str, Offer]) -> Mapping[str, Notice]:
        """By SKU what differs between the lines and the offers of now."""
        found: dict[str, Notice] = {}
        sold = [offers[sku].price.currency for sku in self.lines if sku in offers]
        # As in an order: the first line says in which currency it is.
        currency = sold[0] if sold else ""
        for sku, line in self.lines.items():
            if (offer := offers.get(sku)) is None:
                found[sku] = Notice.NOT_SOLD
            elif offer.price.currency != currency:
                found[sku] = Notice.OTHER_CURRENCY
            elif offer.price != line.price:
                found[sku] = Notice.PRICE_CHANGED
        return found

    def wanted(self) -> tuple[Wanted, ...]:
        """As an order has it. Raises FailedPrecondition for an empty cart."""
        if not self.lines:
            raise FailedPrecondition(f"cart {self.cart_id} is empty", reason="CART_EMPTY")
        return tuple(Wanted(line.sku, line.quantity, line.price) for line in self.lines.values())


def _line(sku: str, quantity: int, offer: Offer) -> CartLine:
    return CartLine(sku, quantity, offer.price, offer.product_id, offer.product_name)
