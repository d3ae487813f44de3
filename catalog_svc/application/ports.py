"""What the use cases need of the world."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Protocol

from catalog_svc.domain.category import Category, Tree
from catalog_svc.domain.product import Product, ProductEvent, Revision, Status, Stored, Variant
from catalog_svc.domain.product_type import ProductType

# So many changes of a product are remembered.
MAX_REVISIONS = 50


class Saved(Enum):
    """What became of one event that was to be saved."""

    SAVED = auto()
    # The product isn't at the version before the event's, or its request is known: somebody else was faster.
    STALE = auto()
    SKU_TAKEN = auto()
    # So many earlier messages of this product wait for the broker that the document would grow without bound.
    BACKED_UP = auto()


@dataclass(frozen=True, slots=True)
class SoldVariant:
    """A variant, with what a buyer needs to know of its product."""

    product_id: str
    product_version: int
    product_name: str
    product_status: Status
    variant: Variant
    tax_class: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that all hold; one that is empty is none. `category_ids` are a category and all below it."""

    category_ids: Collection[str] = ()
    product_type_id: str = ""
    brand: str = ""
    status: Status | None = None
    updated_since: datetime | None = None


class Order(Enum):
    """How products are listed. Ids break ties, in the same direction."""

    BY_ID = auto()
    OLDEST_CHANGE_FIRST = auto()
    LATEST_CHANGE_FIRST = auto()


@dataclass(frozen=True, slots=True)
class Position:
    """Where the last page ended."""

    product_id: str
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Requested:
    """What a creation's request became: the product's id, and the hash of what was asked for."""

    product_id: str
    fingerprint: str


class Shelf(Protocol):
    """What an import needs of a store of products. Every method raises errors.Unavailable where it can't be reached."""

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        """Products and tombstones by id, those that exist."""
        ...

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        """The ids of the products that have these SKUs, by SKU."""
        ...

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        """Store each product as its event leaves it, its revision, and the event to be published, in one atomic write
        a product.

        The answers are in the order of the events, which must be of different products; each is saved or
        refused by itself.
        """
        ...


class Products(Shelf, Protocol):
    """The store of products."""

    def trial(self) -> AbstractAsyncContextManager[Shelf]:
        """What would be if more was saved: it begins as this store is, and what is saved there changes nothing here,
        is told to nobody, and is gone with it. One caller's at a time, who saves what follows from what was read."""
        ...

    async def requested(self, request_id: str) -> Requested | None:
        """What was created by this request, deleted or not."""
        ...

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        """Variants by SKU, those that exist."""
        ...

    async def revisions(self, product_id: str) -> Sequence[Revision] | None:
        """The last MAX_REVISIONS changes, the newest first; None if there never was such a product."""
        ...

    async def page(self, which: Filter, order: Order, after: Position | None, limit: int) -> Sequence[Product]:
        """Up to `limit` products that pass the filter and stand behind `after`, in order."""
        ...

    def stream(self, *, include_deleted: bool = False, after: str = "") -> AsyncGenerator[Sequence[Stored], None]:
        """All products with ids after `after`, and tombstones if asked for, a few hundred at a time, ordered by id.
        Not a snapshot: what is written meanwhile may be there or not."""
        ...


class Categories(Protocol):
    """The store of categories. Every method raises errors.Unavailable where it can't be reached."""

    async def tree(self) -> Tree:
        """All categories as they are at one version of the tree."""
        ...

    async def commit(self, before: Tree, category: Category) -> bool:
        """Store a category as the one change that follows `before`; False if another change came first."""
        ...

    async def tell(self, categories: Sequence[Category]) -> int:
        """Record these paths and their versions as what others are told, each with its event in one atomic write, and
        say how many were; left out are those of which something as new was told, and those of which too much that was
        told earlier waits for the broker."""
        ...

    async def all_told(self, version: int) -> None:
        """Record that others were told all paths of this version of the tree, unless more is recorded."""
        ...


class ProductTypes(Protocol):
    """The store of product types. Every method raises errors.Unavailable where it can't be reached."""

    async def types(self, product_type_ids: Collection[str]) -> Mapping[str, ProductType]:
        """Those that exist, by id."""
        ...

    async def save_type(self, type_: ProductType) -> bool:
        """Store what follows the version before; False if somebody else was faster."""
        ...

    async def type_page(self, after: str, limit: int) -> Sequence[ProductType]:
        """Up to `limit` product types with ids after `after`, ordered by id."""
        ...


class Taxonomy(Categories, ProductTypes, Protocol):
    """Both stores, for those who hold products to them."""
