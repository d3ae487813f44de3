"""What can be asked of the index, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from search_svc.domain.product import Product

Position = tuple[str | float | int, ...]


class Sort(Enum):
    RELEVANCE = "relevance"
    PRICE_ASC = "price"
    PRICE_DESC = "-price"


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Amounts in nanos of `currency`, both included."""

    currency: str
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """`attributes` holds the values allowed for each name; an empty sequence anywhere is no condition."""

    text: str = ""
    brands: Sequence[str] = ()
    categories: Sequence[str] = ()
    attributes: Mapping[str, Sequence[str]] | None = None
    price: PriceRange | None = None
    in_stock: bool = False
    attribute_facets: Sequence[str] = ()
    sort: Sort = Sort.RELEVANCE

    @property
    def filtered(self) -> bool:
        return bool(self.brands or self.categories or self.attributes or self.price or self.in_stock)


@dataclass(frozen=True, slots=True)
class Hit:
    """`highlight` is HTML. `position` says where the hit stands, for the page after it."""

    product: Product
    score: float
    highlight: str
    position: Position


@dataclass(frozen=True, slots=True)
class Facet:
    """Values with the number of products that have each, the most frequent first."""

    name: str
    values: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Results:
    """One page. `more`: there are hits after it. `fuzzy`: found by allowing for typing errors."""

    hits: Sequence[Hit]
    total: int
    facets: Sequence[Facet]
    more: bool
    fuzzy: bool


@dataclass(frozen=True, slots=True)
class IndexStatus:
    index: str
    products: int
    products_in_stock: int
    rebuilding: bool
