"""A product, its variants, what may be said of them, and the events of its life."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite

from chassis.errors import Violation
from chassis.ids import printable
from chassis.money import Money

AttributeValue = str | float | bool

MAX_ID = 128
MAX_NAME = 500
MAX_DESCRIPTION = 20_000
MAX_BRAND = 200
MAX_CATEGORIES = 8
MAX_CATEGORY = 200
MAX_ATTRIBUTES = 500
MAX_ATTRIBUTE_NAME = 200
MAX_ATTRIBUTE_TEXT = 4_000
MAX_VARIANTS = 200
MAX_EANS = 20
# A product travels whole in each of its events, and the broker takes messages of up to 1 MiB.
MAX_BYTES = 256 * 1024

_EAN_LENGTHS = (8, 12, 13, 14)
_LAYOUT = str.maketrans("", "", "\t\n\r\u2028\u2029")


@dataclass(frozen=True, slots=True)
class Variant:
    """One buyable form of a product. `untracked`: a service or charge, of which there is no stock."""

    sku: str
    price: Money
    eans: tuple[str, ...] = ()
    name: str = ""
    untracked: bool = False


@dataclass(frozen=True, slots=True)
class Details:
    """What callers say about a product, as against what the catalog keeps about it."""

    name: str = ""
    description: str = ""
    brand: str = ""
    category_path: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()

    @property
    def skus(self) -> tuple[str, ...]:
        return tuple(variant.sku for variant in self.variants)


FIELDS = ("name", "description", "brand", "category_path", "attributes", "variants")


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
class ProductCreated:
    product: Product


@dataclass(frozen=True, slots=True)
class ProductUpdated:
    product: Product


@dataclass(frozen=True, slots=True)
class ProductDeleted:
    product_id: str
    version: int


ProductEvent = ProductCreated | ProductUpdated | ProductDeleted


def identity(event: ProductEvent) -> tuple[str, int]:
    """The product's id and the version that the event leads to."""
    match event:
        case ProductCreated(product) | ProductUpdated(product):
            return product.product_id, product.version
        case ProductDeleted(product_id, version):
            return product_id, version


def create(before: Tombstone | None, product_id: str, details: Details, *, etag: str, now: datetime) -> ProductCreated:
    version = before.version + 1 if before else 1
    now = _to_the_millisecond(now)
    return ProductCreated(Product(product_id, version, etag, now, now, details))


def revise(before: Product, details: Details, *, etag: str, now: datetime) -> ProductUpdated:
    now = _to_the_millisecond(now)
    return ProductUpdated(Product(before.product_id, before.version + 1, etag, before.create_time, now, details))


def delete(before: Product) -> ProductDeleted:
    return ProductDeleted(before.product_id, before.version + 1)


def _to_the_millisecond(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def violations(details: Details, fields: Collection[str] = FIELDS) -> list[Violation]:
    """All that is wrong with `fields` of `details`, each with the path of the field in the Product message."""
    return [fault for field in fields for fault in _RULES[field](details)]


def size_violations(details: Details) -> list[Violation]:
    """One violation if the texts of a product are too long taken together."""
    if (size := _size(details)) <= MAX_BYTES:
        return []
    return [Violation("description", f"the product's texts are {size:,} bytes together, over {MAX_BYTES:,}")]


def id_violations(product_id: str, field: str) -> list[Violation]:
    """One violation if `product_id` can't be the id of a product."""
    return list(_text(product_id, field, MAX_ID, required=True))


def attribute_path(name: str) -> str:
    shown = name if len(name) <= MAX_ATTRIBUTE_NAME else f"{name[:40]}…"
    return f'attributes["{shown}"]'


def _name(details: Details) -> Iterator[Violation]:
    yield from _text(details.name, "name", MAX_NAME, required=True)


def _description(details: Details) -> Iterator[Violation]:
    yield from _text(details.description, "description", MAX_DESCRIPTION, lines=True)


def _brand(details: Details) -> Iterator[Violation]:
    yield from _text(details.brand, "brand", MAX_BRAND)


def _category_path(details: Details) -> Iterator[Violation]:
    yield from _at_most(details.category_path, "category_path", MAX_CATEGORIES)
    for position, name in enumerate(details.category_path[:MAX_CATEGORIES]):
        yield from _text(name, f"category_path[{position}]", MAX_CATEGORY, required=True)


def _attributes(details: Details) -> Iterator[Violation]:
    if len(details.attributes) > MAX_ATTRIBUTES:
        yield Violation("attributes", f"has {len(details.attributes)}, over {MAX_ATTRIBUTES}")
        return
    for name, value in details.attributes.items():
        path = attribute_path(name)
        if not name.strip() or len(name) > MAX_ATTRIBUTE_NAME or not printable(name):
            yield Violation(path, f"the name must have 1 to {MAX_ATTRIBUTE_NAME} printable characters")
        elif isinstance(value, str):
            yield from _text(value, path, MAX_ATTRIBUTE_TEXT, lines=True)
        elif not isfinite(value):
            yield Violation(path, "must be a finite number")


def _variants(details: Details) -> Iterator[Violation]:
    if not details.variants:
        yield Violation("variants", "is required")
    yield from _at_most(details.variants, "variants", MAX_VARIANTS)
    first: dict[str, int] = {}
    for position, variant in enumerate(details.variants[:MAX_VARIANTS]):
        path = f"variants[{position}]"
        yield from _text(variant.sku, f"{path}.sku", MAX_ID, required=True)
        if variant.sku and (earlier := first.setdefault(variant.sku, position)) != position:
            yield Violation(f"{path}.sku", f"{variant.sku!r} is already that of variants[{earlier}]")
        if variant.price.nanos < 0:
            yield Violation(f"{path}.price", "must not be negative")
        yield from _text(variant.name, f"{path}.name", MAX_NAME)
        yield from _at_most(variant.eans, f"{path}.eans", MAX_EANS)
        for number, ean in enumerate(variant.eans[:MAX_EANS]):
            yield from _ean(ean, f"{path}.eans[{number}]")


def _ean(ean: str, path: str) -> Iterator[Violation]:
    if len(ean) not in _EAN_LENGTHS or not (ean.isascii() and ean.isdigit()):
        yield Violation(path, f"{ean[:40]!r} must have 8, 12, 13 or 14 digits")
    elif ean_check_digit(ean[:-1]) != ean[-1]:
        yield Violation(path, f"{ean!r} has a wrong check digit")


def ean_check_digit(digits: str) -> str:
    """The digit that completes an EAN or GTIN (GS1 General Specifications, 7.9)."""
    total = sum(int(digit) * (1 if position % 2 else 3) for position, digit in enumerate(reversed(digits)))
    return str(-total % 10)


_RULES = {
    "name": _name,
    "description": _description,
    "brand": _brand,
    "category_path": _category_path,
    "attributes": _attributes,
    "variants": _variants,
}


def _text(text: str, path: str, maximum: int, *, required: bool = False, lines: bool = False) -> Iterator[Violation]:
    """`lines`: it may have line breaks and tabs."""
    if required and not text.strip():
        yield Violation(path, "is required")
    elif len(text) > maximum:
        yield Violation(path, f"has {len(text):,} characters, over {maximum:,}")
    elif not printable(text.translate(_LAYOUT) if lines else text):
        yield Violation(path, f"must not hold control characters{'' if lines else ' or line breaks'}")


def _at_most(items: Sequence[object], path: str, maximum: int) -> Iterator[Violation]:
    if len(items) > maximum:
        yield Violation(path, f"has {len(items)}, over {maximum}")


def _size(details: Details) -> int:
    texts = [details.name, details.description, details.brand, *details.category_path, *details.attributes]
    texts += [value for value in details.attributes.values() if isinstance(value, str)]
    for variant in details.variants:
        texts += (variant.sku, variant.name, *variant.eans)
    return len("".join(texts).encode())
