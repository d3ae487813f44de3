"""What the index knows of a product, and how news of different sources and ages becomes one document.

A document has four sources: the product itself, the availability of each of its SKUs, the path of its category, and
its popularity.
Each carries versions of its own, and the newer one wins wherever two meet; so news may come twice and in any order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

from chassis.money import Money
from search_svc.domain.popularity import Popularity

AttributeValue = str | float | bool


class Availability(IntEnum):
    """What a shopper is told about stock, the best first."""

    IN_STOCK = 1
    LOW = 2
    OUT = 3


@dataclass(frozen=True, slots=True)
class SkuAvailability:
    """`version` is raised with every flip."""

    level: Availability
    version: int

    @staticmethod
    def newer(one: "SkuAvailability | None", other: "SkuAvailability | None") -> "SkuAvailability | None":
        if one is None or (other is not None and other.version > one.version):
            return other
        return one


@dataclass(frozen=True, slots=True)
class Category:
    """A category with its names from the top down; at version 0 the path isn't known yet. Without an id it is none."""

    category_id: str = ""
    path: tuple[str, ...] = ()
    version: int = 0

    def updated_by(self, news: "Category | None") -> "Category":
        """The newer of both, if they are of one category."""
        if news and news.category_id == self.category_id and news.version > self.version:
            return news
        return self


@dataclass(frozen=True, slots=True)
class Variant:
    sku: str
    price: Money
    name: str = ""
    eans: tuple[str, ...] = ()
    untracked: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Product:
    """One version of a product; of a deleted one only id and version remain. Only an `active` one is shown.
    `availability` is by SKU, `created` in microseconds since 1970."""

    product_id: str
    version: int
    deleted: bool = False
    active: bool = True
    name: str = ""
    description: str = ""
    brand: str = ""
    category: Category = field(default_factory=Category)
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    availability: Mapping[str, SkuAvailability] = field(default_factory=dict)
    created: int = 0
    popularity: Popularity = field(default_factory=Popularity)

    @property
    def skus(self) -> frozenset[str]:
        return frozenset(variant.sku for variant in self.variants)

    def updated_by(self, incoming: "Product") -> "Product":
        """The newer of both versions, with what either knows about the availability of its SKUs, its category and
        its popularity."""
        newest = incoming if incoming.version > self.version else self
        other = self if newest is incoming else incoming
        newest = newest.with_availability(other.availability).with_category(other.category)
        return newest.with_popularity(other.popularity)

    def with_category(self, news: Category | None) -> Self:
        """With the path of its category, where that is newer."""
        return replace(self, category=self.category.updated_by(news))

    def with_popularity(self, news: Popularity | None) -> Self:
        """With the newer popularity; a deleted product has none."""
        return self if self.deleted else replace(self, popularity=self.popularity.updated_by(news))

    def with_availability(self, news: Mapping[str, SkuAvailability]) -> Self:
        known = dict(self.availability)
        for sku in self.skus & news.keys():
            if newer := SkuAvailability.newer(known.get(sku), news[sku]):
                known[sku] = newer
        return replace(self, availability=known)

    @property
    def best_availability(self) -> Availability:
        """That of the variant best to be had. What isn't tracked is in stock, what was never stocked is out."""
        levels = (
            Availability.IN_STOCK if variant.untracked
            else known.level if (known := self.availability.get(variant.sku))
            else Availability.OUT
            for variant in self.variants
        )  # fmt: skip
        return min(levels, default=Availability.OUT)

    @property
    def price_from(self) -> Money | None:
        """The lowest price, in the currency of the first variant; None for a deleted product."""
        if not self.variants:
            return None
        currency = self.variants[0].price.currency
        return min((v.price for v in self.variants if v.price.currency == currency), key=lambda p: p.nanos)

    @property
    def categories(self) -> list[str]:
        """Its category and all above it, each as a path joined by " > "."""
        path = self.category.path
        return [category_name(path[: depth + 1]) for depth in range(len(path))]


@dataclass(frozen=True, slots=True)
class SkuRecord:
    """What is known of a SKU: its availability, and every product that ever had it (ids are only ever added)."""

    sku: str
    availability: SkuAvailability | None = None
    product_ids: frozenset[str] = frozenset()

    def used_by(self, product_ids: Iterable[str]) -> Self:
        return replace(self, product_ids=self.product_ids.union(product_ids))

    def available(self, news: SkuAvailability) -> Self:
        return replace(self, availability=SkuAvailability.newer(self.availability, news))


def category_name(path: Iterable[str]) -> str:
    return " > ".join(path)
