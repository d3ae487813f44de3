"""How well a product sells, and the orders that say so.

Times are in milliseconds since 1970, 0 where nothing is known.
"""

import math
from dataclasses import dataclass, field

_STEPS = 4


@dataclass(frozen=True, slots=True)
class Popularity:
    """`value` as `popularity_of` has it; `version` is the time it was computed at, and the newer one wins."""

    value: float = 0.0
    version: int = 0

    def updated_by(self, news: "Popularity | None") -> "Popularity":
        return news if news and news.version > self.version else self


@dataclass(frozen=True, slots=True)
class PopularityRecord:
    """The popularity of a product that may not be known yet."""

    product_id: str
    popularity: Popularity = field(default_factory=Popularity)

    def updated_by(self, news: Popularity) -> "PopularityRecord":
        return PopularityRecord(self.product_id, self.popularity.updated_by(news))


def popularity_of(units: int) -> float:
    """log2(1 + units), rounded down to quarters: a product is written again only once it sells about a fifth more or
    less than when it was written last."""
    return math.floor(math.log2(1 + units) * _STEPS) / _STEPS


@dataclass(frozen=True, slots=True)
class Sold:
    """Units of one product in one order. The SKU is kept only where the order doesn't say which product has it."""

    product_id: str
    sku: str
    units: int


@dataclass(frozen=True, slots=True)
class Sale:
    """What is known of one order: when it was `confirmed` with which lines, and when it was `cancelled`.

    Either may be heard of first, and any number of times. A cancelled order counts for nothing.
    """

    order_id: str
    confirmed: int = 0
    lines: tuple[Sold, ...] = ()
    cancelled: int = 0

    @property
    def time(self) -> int:
        """When the window leaves it behind; a confirmation that comes after that is older still."""
        return self.confirmed or self.cancelled

    def updated_by(self, news: "Sale") -> "Sale":
        """All that either knows; of two times the earlier, so that a repetition that says another changes nothing."""
        first = min((sale for sale in (self, news) if sale.confirmed), key=_confirmation, default=self)
        cancelled = min(filter(None, (self.cancelled, news.cancelled)), default=0)
        return Sale(self.order_id, first.confirmed, first.lines, cancelled)


def _confirmation(sale: Sale) -> tuple[int, list[tuple[str, str, int]]]:
    return sale.confirmed, [(line.product_id, line.sku, line.units) for line in sale.lines]
