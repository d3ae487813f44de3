"""What the use cases need of the engine and of the services that own the data."""

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Generic, Protocol, TypeVar

from chassis.errors import PolymartError, Unavailable
from search_svc.domain.popularity import PopularityRecord, Sale
from search_svc.domain.product import Category, Product, SkuAvailability, SkuRecord
from search_svc.domain.query import IndexStatus, Position, Query, Relaxed, Results
from search_svc.domain.rebuild import Layout, Rebuild
from search_svc.domain.suggestion import Completion, SearchedText

D = TypeVar("D", Product, SkuRecord, Category, PopularityRecord, Sale)
T = TypeVar("T")


class IndexMissing(Unavailable):
    """The index isn't there, or not yet filled: wait for the rebuild."""

    default_reason = "INDEX_MISSING"

    def __init__(self, message: str = "the product index is missing; it is being rebuilt"):
        super().__init__(message)


class DocumentRefused(PolymartError):
    """The engine won't take this document as it is."""

    code = "INTERNAL"
    default_reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A document and the revision it was read at."""

    document: T
    revision: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Write(Generic[D]):
    """A document that replaces the revision read, or that is new where there was none."""

    key: str
    document: D
    revision: tuple[int, int] | None


class Documents(Protocol[D]):
    """Documents of one kind by key, as last written: no refresh lies between a write and a read."""

    async def read(self, keys: Sequence[str]) -> Mapping[str, Stored[D]]:
        """Those that exist. Raises IndexMissing, Unavailable."""
        ...

    async def write(self, writes: Sequence[Write[D]]) -> set[str]:
        """The keys that someone else wrote meanwhile, where nothing was done. Raises DocumentRefused, IndexMissing,
        Unavailable; some or all of the others are written then."""
        ...


class Index(Protocol):
    """The documents a projection writes."""

    @property
    def products(self) -> Documents[Product]: ...
    @property
    def skus(self) -> Documents[SkuRecord]: ...
    @property
    def categories(self) -> Documents[Category]: ...
    @property
    def popularity(self) -> Documents[PopularityRecord]:
        """By product, whether or not that is known."""
        ...

    async def behind(self, categories: Sequence[Category], limit: int) -> Sequence[str]:
        """The ids of up to `limit` products in these categories that have an older path, of all that was written before
        this call. Raises IndexMissing, Unavailable."""
        ...


class ProductSearch(Protocol):
    """Queries over what the last refresh saw. Raise IndexMissing, Unavailable."""

    async def search(self, query: Query, *, size: int, after: Position | None, relaxed: Relaxed) -> Results: ...

    async def matches(self, text: str) -> bool:
        """Whether any product has all that the text asks for, whatever the filters."""
        ...

    async def status(self) -> IndexStatus: ...


class Visibility(Protocol):
    """Versions of products, by id, in the index that searches read. All raise IndexMissing, Unavailable."""

    async def searched(self) -> str:
        """The name of that index."""
        ...

    async def written(self, product_ids: Set[str]) -> Mapping[str, int]:
        """As last written."""
        ...

    async def shown(self, product_ids: Set[str]) -> Mapping[str, int]:
        """As searches see them."""
        ...

    async def refresh_shown(self) -> None:
        """Let searches see all that was written before."""
        ...


class Targets(Protocol):
    """The generations that are written."""

    async def targets(self) -> Sequence[Index]:
        """All of them, the one that serves last. What comes of it may be outdated: then its writes raise IndexMissing,
        and `forget` makes the next call look again. Raises IndexMissing where there is none, Unavailable."""
        ...

    def forget(self) -> None: ...


class Generations(Targets, Protocol):
    """The generations of the index, and the rebuild. All raise Unavailable."""

    async def prepare(self) -> None:
        """Make what the other methods need."""
        ...

    async def layout(self) -> Layout: ...

    async def change(self, seen: Layout, *, written: Set[int], filled: Set[int], serving: int) -> bool:
        """Make the layout this, all at once; False, and nothing is done, if it isn't what was `seen` any more.

        Once it has returned, whatever was told to write to the generations `seen` can't. Where it raises Unavailable,
        it may be done and not known everywhere: to be sure, change it again. Raises IndexMissing.
        """
        ...

    async def create(self, generation: int) -> None:
        """Make its indices, empty, where they are missing. Nobody writes or reads them until the layout says so."""
        ...

    async def delete(self, generation: int) -> None: ...

    async def refresh(self, generation: int) -> None:
        """Show to searches all that was written to it."""
        ...

    async def size(self, generation: int) -> int:
        """About how many entries its sources had."""
        ...

    async def delete_earlier(self) -> None:
        """Delete all that earlier releases left, whose indices were of another version."""
        ...

    def name_of(self, generation: int) -> str:
        """What operators know it by."""
        ...

    def index(self, generation: int, epoch: str) -> Index:
        """To be read and written while the layout's epoch is this; later it raises IndexMissing."""
        ...

    async def rebuild(self) -> Stored[Rebuild] | None:
        """The last one. Raises IndexMissing."""
        ...

    async def save(self, rebuild: Rebuild, revision: tuple[int, int] | None) -> tuple[int, int] | None:
        """The new revision; None, and nothing is done, if somebody else wrote since `revision`. Raises IndexMissing."""
        ...


class Sources(Protocol):
    """The owners of what the index shows. Raise Unavailable."""

    def products(self, token: str = "") -> AsyncIterator[tuple[Sequence[Product], str]]:
        """Every product, deleted ones too, a few hundred at a time, each time with the token to go on behind them.
        Raises InvalidArgument for a token that isn't one any more."""
        ...

    def categories(self) -> AsyncIterator[Sequence[Category]]:
        """Every category with its path, a few hundred at a time."""
        ...

    def availability(self) -> AsyncIterator[Mapping[str, SkuAvailability]]:
        """The availability of every SKU that was ever stocked, a few hundred at a time."""
        ...


@dataclass(frozen=True, slots=True)
class Completed:
    """What begins as was typed, the best first."""

    products: Sequence[Completion] = ()
    brands: Sequence[str] = ()
    categories: Sequence[str] = ()


class Completions(Protocol):
    async def complete(self, text: str, size: int) -> Completed:
        """At least `size` products, if there are so many. Raises IndexMissing, Unavailable."""
        ...


class Spelling(Protocol):
    async def corrections(self, text: str) -> Sequence[str]:
        """A few other spellings in the index's own words, the likeliest first. Raises IndexMissing, Unavailable."""
        ...


class SearchLog(Protocol):
    """What was searched for, by day and text. Raise Unavailable."""

    async def write(self, day: date, counts: Mapping[str, SearchedText]) -> None:
        """What this process has counted on a day so far, by text; it replaces what it wrote of them before."""
        ...

    async def read(self, since: date, *, without_hits: bool, most: int) -> Sequence[SearchedText]:
        """Over all processes, the most frequent first; with `without_hits` by how often nothing was found."""
        ...

    async def forget(self, before: date, most: int) -> None:
        """Drop all days before one, and the oldest ones where there are over `most` entries."""
        ...


@dataclass(frozen=True, slots=True)
class Units:
    """Units sold by product, and by SKU where the order didn't say which product it was."""

    by_product: Mapping[str, int]
    by_sku: Mapping[str, int]


class Sales(Protocol):
    """The orders of the window, one document each, and who keeps them. All raise IndexMissing, Unavailable."""

    @property
    def orders(self) -> Documents[Sale]: ...

    async def units(self, since: int) -> Units:
        """What orders confirmed since then sold that weren't cancelled, as the last refresh saw them."""
        ...

    async def popular(self) -> Sequence[str]:
        """The ids of all products that are recorded with a popularity above 0."""
        ...

    async def forget(self, before: int) -> None:
        """Drop the orders whose time is before that."""
        ...

    async def refresh(self) -> None:
        """Show all that was written before to the queries above."""
        ...

    async def prepare(self) -> bool:
        """Create what is missing, empty. True if anything was."""
        ...

    async def take(self, holder: str, seconds: float) -> bool:
        """Take the right to keep them; False while another holds it. It is lost with the orders."""
        ...

    async def renew(self, holder: str, seconds: float) -> bool:
        """Hold it for longer; False if it went to another, or was lost with the orders, since it was taken."""
        ...

    async def filled(self) -> bool:
        """Whether all orders of the window are there."""
        ...

    async def complete(self, holder: str) -> bool:
        """Record that they are; False where renewing would be."""
        ...

    async def computed(self, holder: str, since: int) -> bool:
        """Record that products show what was sold since then; False where renewing would be."""
        ...


class SalesHistory(Protocol):
    """The order events as their stream keeps them."""

    def sales(self, since: int) -> AsyncIterator[Sequence[Sale]]:
        """What they said from then until now, a few hundred at a time. Raises Unavailable, also in the middle."""
        ...


class ShownProducts(Protocol):
    async def shown(self, product_ids: Sequence[str], category: str) -> Mapping[str, Product]:
        """Those of these products that shoppers see, in that category or below; an empty one is no condition. Raises
        IndexMissing, Unavailable."""
        ...
