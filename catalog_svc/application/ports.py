"""What the use cases need of the world."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from catalog_svc.domain.product import Product, ProductEvent, Stored, Variant


class Saved(Enum):
    """What became of one event that was to be saved."""

    SAVED = auto()
    # The product isn't at the version before the event's: somebody else was faster.
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
    variant: Variant


class Products(Protocol):
    """The store of products. Every method raises errors.Unavailable where it can't be reached."""

    async def get(self, product_ids: Sequence[str]) -> Mapping[str, Stored]:
        """Products and tombstones by id, those that exist."""
        ...

    async def holders(self, skus: Sequence[str]) -> Mapping[str, str]:
        """The ids of the products that have these SKUs, by SKU."""
        ...

    async def variants(self, skus: Sequence[str]) -> Mapping[str, SoldVariant]:
        """Variants by SKU, those that exist."""
        ...

    async def save(self, events: Sequence[ProductEvent]) -> Sequence[Saved]:
        """Store each product as its event leaves it, and the event to be published, in one atomic write a product.

        The answers are in the order of the events, which must be of different products; each is saved or
        refused by itself.
        """
        ...

    async def page(self, after: str, limit: int, brand: str = "") -> Sequence[Product]:
        """Up to `limit` products with ids after `after`, ordered by id; of one brand, if given."""
        ...

    def stream(self, *, include_deleted: bool = False) -> AsyncGenerator[Sequence[Stored], None]:
        """All products, and tombstones if asked for, a few hundred at a time, in any order. Not a snapshot: what is
        written meanwhile may be there or not."""
        ...
