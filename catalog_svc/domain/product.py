"""A product, its variants, and the events of its life."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from chassis.money import Money

AttributeValue = str | float | bool


class Status(Enum):
    """Where a product stands in its life. Only what is ACTIVE is found in search and sold."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True)
class MediaLink:
    """A picture or document kept elsewhere."""

    uri: str
    alt_text: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One buyable form of a product. `list_price` is what it usually costs; `options` tell it from the others.
    `untracked`: a service or charge, of which there is no stock."""

    sku: str
    price: Money
    eans: tuple[str, ...] = ()
    name: str = ""
    untracked: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    list_price: Money | None = None
    media: tuple[MediaLink, ...] = ()


VARIANT_FIELDS = ("price", "eans", "name", "untracked", "options", "list_price", "media")


@dataclass(frozen=True, slots=True)
class Details:
    """What callers say about a product, as against what the catalog keeps about it."""

    name: str = ""
    description: str = ""
    brand: str = ""
    category_id: str = ""
    product_type_id: str = ""
    status: Status = Status.ACTIVE
    tags: tuple[str, ...] = ()
    media: tuple[MediaLink, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    tax_class: str = ""

    @property
    def skus(self) -> tuple[str, ...]:
        return tuple(variant.sku for variant in self.variants)


FIELDS = (
    "name", "description", "brand", "category_id", "product_type_id", "status", "tags", "media", "attributes",
    "variants", "tax_class",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Product:
    """A product as stored. `version` counts its writes from 1, deletions among them; times are to the millisecond."""

    product_id: str
    version: int
    etag: str
    create_time: datetime
    update_time: datetime
    details: Details


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a deleted product: its versions go on from here if it is created again."""

    product_id: str
    version: int


Stored = Product | Tombstone


@dataclass(frozen=True, slots=True)
class Request:
    """The request that created a product: the caller's id of it, and a hash of what it asked for."""

    id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ProductCreated:
    product: Product
    by: str = ""
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class ProductUpdated:
    """`changed` are the paths that differ from the version before."""

    product: Product
    by: str = ""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProductDeleted:
    product_id: str
    version: int
    time: datetime
    by: str = ""


ProductEvent = ProductCreated | ProductUpdated | ProductDeleted


class Kind(Enum):
    """What was done to a product."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Revision:
    """One change of a product: the version it led to, when, by whom, what, and the paths that changed."""

    version: int
    time: datetime
    by: str
    kind: Kind
    changed: tuple[str, ...] = ()


def identity(event: ProductEvent) -> tuple[str, int]:
    """The product's id and the version that the event leads to."""
    match event:
        case ProductCreated(product) | ProductUpdated(product):
            return product.product_id, product.version
        case ProductDeleted(product_id, version):
            return product_id, version


def revision(event: ProductEvent) -> Revision:
    match event:
        case ProductCreated(product, by):
            return Revision(product.version, product.update_time, by, Kind.CREATED)
        case ProductUpdated(product, by, changed):
            return Revision(product.version, product.update_time, by, Kind.UPDATED, changed)
        case ProductDeleted(_, version, time, by):
            return Revision(version, time, by, Kind.DELETED)


def create(
    before: Tombstone | None,
    product_id: str,
    details: Details,
    *,
    etag: str,
    now: datetime,
    by: str = "",
    request: Request | None = None,
) -> ProductCreated:
    version = before.version + 1 if before else 1
    now = to_the_millisecond(now)
    return ProductCreated(Product(product_id, version, etag, now, now, details), by, request)


def revise(before: Product, details: Details, *, etag: str, now: datetime, by: str = "") -> ProductUpdated:
    now = to_the_millisecond(now)
    after = Product(before.product_id, before.version + 1, etag, before.create_time, now, details)
    return ProductUpdated(after, by, differences(before.details, details))


def delete(before: Product, *, now: datetime, by: str = "") -> ProductDeleted:
    return ProductDeleted(before.product_id, before.version + 1, to_the_millisecond(now), by)


def to_the_millisecond(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


_MOST_PATHS = 50


def differences(before: Details, after: Details) -> tuple[str, ...]:
    """The paths, as an update mask would name them, of what differs: 50 at most, then "…"."""
    paths: list[str] = []
    for name in FIELDS:
        old, new = getattr(before, name), getattr(after, name)
        if name == "attributes":
            # True equals 1.0 and yet is another value.
            was, now = ({key: (type(v) is bool, v) for key, v in values.items()} for values in (old, new))
            paths += [f"attributes.{quoted(key)}" for key in {**was, **now} if was.get(key) != now.get(key)]
        elif old != new:
            paths += (name == "variants" and _variant_differences(before, after)) or [name]
    return (*paths[:_MOST_PATHS], "…") if len(paths) > _MOST_PATHS else tuple(paths)


def _variant_differences(before: Details, after: Details) -> list[str]:
    old, new = ({variant.sku: variant for variant in details.variants} for details in (before, after))
    paths: list[str] = []
    for sku in {**old, **new}:
        if sku not in old or sku not in new:
            paths.append(f"variants.{quoted(sku)}")
        else:
            fields = (name for name in VARIANT_FIELDS if getattr(old[sku], name) != getattr(new[sku], name))
            paths += [f"variants.{quoted(sku)}.{name}" for name in fields]
    return paths


def quoted(key: str) -> str:
    """`key` as a part of a path."""
    return f"`{key.replace('`', '``')}`" if "." in key or "`" in key else key
