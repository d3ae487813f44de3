"""What can be asked of the index, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from search_svc.domain.product import Availability, Product

Position = tuple[str | float | int, ...]


class Sort(Enum):
    RELEVANCE = "relevance"
    PRICE_ASC = "price"
    PRICE_DESC = "-price"
    NEWEST = "-created"


class Relaxed(Enum):
    """What was given up so that something is found."""

    NOTHING = 0
    TYPOS = 1
    FEWER_WORDS = 2


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Amounts in nanos of `currency`: both ends are included, `below` is not."""

    currency: str
    minimum: int | None = None
    maximum: int | None = None
    below: int | None = None


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Finite numbers: both ends are included, `below` is not."""

    minimum: float | None = None
    maximum: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """`attributes` holds the values and the ranges of numbers allowed for each name; an empty sequence anywhere is no
    condition. Where no `attribute_facets` are named, the data choose. Price ranges are counted in `currency`, or in
    the one that most hits have. `explain`: hits say where their scores come from."""

    text: str = ""
    brands: Sequence[str] = ()
    categories: Sequence[str] = ()
    attributes: Mapping[str, Sequence[str | NumberRange]] | None = None
    price: PriceRange | None = None
    price_ranges: Sequence[PriceRange] = ()
    availabilities: Sequence[Availability] = ()
    in_stock: bool = False
    attribute_facets: Sequence[str] = ()
    facets: bool = True
    currency: str = ""
    sort: Sort = Sort.RELEVANCE
    explain: bool = False

    @property
    def filtered(self) -> bool:
        return bool(
            self.brands
            or self.categories
            or self.attributes
            or self.price
            or self.price_ranges
            or self.availabilities
            or self.in_stock
        )


@dataclass(frozen=True, slots=True)
class ScorePart:
    """A score is the sum of its parts times those of them that are factors."""

    name: str
    value: float
    factor: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """`highlight` is HTML. `position` says where the hit stands, for the page after it."""

    product: Product
    score: float
    highlight: str
    position: Position
    explanation: Sequence[ScorePart] = ()


@dataclass(frozen=True, slots=True)
class FacetValue:
    """A value, or a range of prices or numbers, with the number of products that have it. `depth` is a category's."""

    value: str
    count: int
    range: PriceRange | NumberRange | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Facet:
    """The most frequent value first; ranges from low to high, categories as a tree. `unit` is what numbers count."""

    name: str
    values: Sequence[FacetValue]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """One page. `more`: there are hits after it. `whole`: of the products that pass the filters no facet shows, one has
    all that the text asks for. `at_least`: there are more hits than `total`."""

    hits: Sequence[Hit]
    total: int
    facets: Sequence[Facet]
    more: bool
    relaxed: Relaxed = Relaxed.NOTHING
    whole: bool = True
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class IndexStatus:
    index: str
    products: int
    products_in_stock: int
    rebuilding: bool
