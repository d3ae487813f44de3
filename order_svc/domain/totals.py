"""What an order costs beside its goods: tax by line and shipping, in whole minor units of its currency.

The rounding rule: an amount is rounded half away from zero where it arises and never again. It arises as a line's net
(unit price times quantity), a line's tax (its net times the rate), the tax on shipping, and a part of a line that is
given back. Every sum is a sum of rounded amounts, so that what is shown adds up.

A part that is given back is the difference of two rounded shares of its line, of the units given back with it and of
those before: whatever the parts, together they are the line to the minor unit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chassis.errors import InvalidArgument, Violation
from chassis.money import Money

if TYPE_CHECKING:
    from order_svc.domain.order import Line

MILLION = 1_000_000
# The class that shipping has in the tax table.
SHIPPING = "shipping"


@dataclass(frozen=True, slots=True)
class Destination:
    """`country` as ISO 3166-1 alpha-2; `region` as the second part of an ISO 3166-2 code, or empty."""

    country: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class Shipping:
    cost: Money
    tax: Money


@dataclass(frozen=True, slots=True)
class Totals:
    net: Money
    tax: Money
    shipping: Money
    shipping_tax: Money

    @classmethod
    def of(cls, lines: Sequence["Line"], shipping: Shipping | None) -> "Totals":
        """Of at least one line, all in one currency."""
        nothing = Money(lines[0].unit_price.currency, 0)
        shipping = shipping or Shipping(nothing, nothing)
        net, tax = added(nothing, (x.total for x in lines)), added(nothing, (x.tax for x in lines if x.tax))
        return cls(net, tax, shipping.cost, shipping.tax)

    @property
    def gross(self) -> Money:
        return self.net + self.tax + self.shipping + self.shipping_tax


@dataclass(frozen=True, slots=True)
class ShippingRule:
    """`flat` for an order whose lines' net is below `free_from` (None: always)."""

    flat: Money
    free_from: Money | None = None


@dataclass(frozen=True, slots=True)
class Charges:
    """The shop's tax table and shipping rules; empty ones charge nothing.

    `rates` are millionths by (country, region, tax class): an empty region stands for every region that has no rate of
    its own, an empty class for products without one. `shipping` is by currency. `home` is where an order goes that
    doesn't say.
    """

    rates: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    shipping: Mapping[str, ShippingRule] = field(default_factory=dict)
    home: Destination | None = None

    def destination(self, said: Destination | None) -> Destination | None:
        """Where the order goes. Raises InvalidArgument if taxes depend on it and nobody says."""
        if (found := said or self.home) is None and self.rates:
            raise InvalidArgument([Violation("destination", "is required: taxes depend on it")])
        return found

    def rate(self, destination: Destination | None, tax_class: str) -> int:
        if destination is None:
            return 0
        at = ((destination.country, destination.region, tax_class), (destination.country, "", tax_class))
        return next((self.rates[key] for key in at if key in self.rates), 0)

    def apply(
        self, lines: Sequence["Line"], classes: Sequence[str], destination: Destination | None
    ) -> tuple[tuple["Line", ...], Shipping | None]:
        """The lines with their tax, and what shipping costs. `classes` are the lines' tax classes."""
        taxed = [self._taxed(x, self.rate(destination, c)) for x, c in zip(lines, classes, strict=True)]
        nothing = Money(taxed[0].unit_price.currency, 0)
        rule = self.shipping.get(nothing.currency)
        net = added(nothing, (x.total for x in taxed))
        if rule is None or (rule.free_from is not None and net.nanos >= rule.free_from.nanos):
            return tuple(taxed), None
        tax = rule.flat.times(self.rate(destination, SHIPPING), MILLION)
        return tuple(taxed), Shipping(rule.flat, tax)

    def _taxed(self, line: "Line", rate: int) -> "Line":
        return replace(line, tax=line.total.times(rate, MILLION), tax_rate=rate) if rate else line


def share(amount: Money, units: int, of: int, before: int = 0) -> Money:
    """What `units` of a line's `of` units are of its `amount`, after `before` others were given back."""
    return _portion(amount, before + units, of) - _portion(amount, before, of)


def _portion(amount: Money, units: int, of: int) -> Money:
    # The whole as it is: orders of old may have lines finer than the minor unit.
    return amount if units == of else amount.times(units, of)


def added(nothing: Money, amounts: Iterable[Money]) -> Money:
    return sum(amounts, nothing)
