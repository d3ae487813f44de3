"""What may be said of a product: every fault with the path of its field in the Product message."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import isfinite
from urllib.parse import urlsplit

from catalog_svc.domain.product import FIELDS, Details, MediaLink, Variant
from chassis.errors import Violation
from chassis.ids import printable

MAX_ID = 128
MAX_NAME = 500
MAX_DESCRIPTION = 20_000
MAX_BRAND = 200
MAX_TAGS = 50
MAX_TAG = 100
MAX_TAX_CLASS = 64
MAX_MEDIA = 50
MAX_URI = 2_000
MAX_ALT_TEXT = 500
MAX_ATTRIBUTES = 500
MAX_ATTRIBUTE_NAME = 200
# With a name of 200, what an index still takes as one term: 32,766 bytes.
MAX_ATTRIBUTE_TEXT = 7_500
MAX_VARIANTS = 200
MAX_EANS = 200
MAX_OPTIONS = 10
MAX_OPTION_NAME = 50
MAX_OPTION = 200
MAX_VARIANT_MEDIA = 20
# A product travels whole in each of its events, and the broker takes messages of up to 1 MiB.
MAX_BYTES = 256 * 1024

_EAN_LENGTHS = (8, 12, 13, 14)
_LAYOUT = str.maketrans("", "", "\t\n\r\u2028\u2029")


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
    return list(text(product_id, field, MAX_ID, required=True))


def attribute_path(name: str) -> str:
    shown = name if len(name) <= MAX_ATTRIBUTE_NAME else f"{name[:40]}…"
    return f'attributes["{shown}"]'


def _name(details: Details) -> Iterator[Violation]:
    yield from text(details.name, "name", MAX_NAME, required=True)


def _description(details: Details) -> Iterator[Violation]:
    yield from text(details.description, "description", MAX_DESCRIPTION, lines=True)


def _brand(details: Details) -> Iterator[Violation]:
    yield from text(details.brand, "brand", MAX_BRAND)


def _category_id(details: Details) -> Iterator[Violation]:
    yield from text(details.category_id, "category_id", MAX_ID)


def _product_type_id(details: Details) -> Iterator[Violation]:
    yield from text(details.product_type_id, "product_type_id", MAX_ID)


def _tax_class(details: Details) -> Iterator[Violation]:
    yield from text(details.tax_class, "tax_class", MAX_TAX_CLASS)


def _nothing(_: Details) -> Iterator[Violation]:
    yield from ()


def _tags(details: Details) -> Iterator[Violation]:
    yield from at_most(details.tags, "tags", MAX_TAGS)
    for position, tag in enumerate(details.tags[:MAX_TAGS]):
        yield from text(tag, f"tags[{position}]", MAX_TAG, required=True)
        if tag in details.tags[:position]:
            yield Violation(f"tags[{position}]", f"{tag[:MAX_TAG]!r} is there already")


def _media(details: Details) -> Iterator[Violation]:
    yield from _links(details.media, "media", MAX_MEDIA)


def _attributes(details: Details) -> Iterator[Violation]:
    if len(details.attributes) > MAX_ATTRIBUTES:
        yield Violation("attributes", f"has {len(details.attributes)}, over {MAX_ATTRIBUTES}")
        return
    for name, value in details.attributes.items():
        path = attribute_path(name)
        if not _is_name(name, MAX_ATTRIBUTE_NAME):
            yield Violation(
                path, f"the name must have 1 to {MAX_ATTRIBUTE_NAME} printable characters, no space at its ends"
            )
        elif isinstance(value, str):
            yield from text(value, path, MAX_ATTRIBUTE_TEXT, lines=True)
        elif not isfinite(value):
            yield Violation(path, "must be a finite number")


def _variants(details: Details) -> Iterator[Violation]:
    if not details.variants:
        yield Violation("variants", "is required")
    yield from at_most(details.variants, "variants", MAX_VARIANTS)
    first: dict[str, int] = {}
    chosen: dict[frozenset[tuple[str, str]], int] = {}
    for position, variant in enumerate(details.variants[:MAX_VARIANTS]):
        path = f"variants[{position}]"
        yield from _variant(variant, path)
        if variant.sku and (earlier := first.setdefault(variant.sku, position)) != position:
            yield Violation(f"{path}.sku", f"{variant.sku!r} is already that of variants[{earlier}]")
        options = frozenset(variant.options.items())
        if options and (earlier := chosen.setdefault(options, position)) != position:
            yield Violation(f"{path}.options", f"are those of variants[{earlier}]")


def _variant(variant: Variant, path: str) -> Iterator[Violation]:
    yield from text(variant.sku, f"{path}.sku", MAX_ID, required=True)
    if variant.price.nanos < 0:
        yield Violation(f"{path}.price", "must not be negative")
    yield from _list_price(variant, f"{path}.list_price")
    yield from text(variant.name, f"{path}.name", MAX_NAME)
    yield from at_most(variant.eans, f"{path}.eans", MAX_EANS)
    for number, ean in enumerate(variant.eans[:MAX_EANS]):
        yield from _ean(ean, f"{path}.eans[{number}]")
    yield from _options(variant.options, f"{path}.options")
    yield from _links(variant.media, f"{path}.media", MAX_VARIANT_MEDIA)


def _list_price(variant: Variant, path: str) -> Iterator[Violation]:
    # A price that couldn't be read has no currency, and nothing can be said beside it.
    if variant.list_price is None or not variant.price.currency:
        return
    if variant.list_price.currency != variant.price.currency:
        yield Violation(path, f"must be in {variant.price.currency}, as the price")
    elif variant.list_price.nanos < variant.price.nanos:
        yield Violation(path, "must not be below the price")


def _options(options: Mapping[str, str], path: str) -> Iterator[Violation]:
    if len(options) > MAX_OPTIONS:
        yield Violation(path, f"has {len(options)}, over {MAX_OPTIONS}")
        return
    for name, value in options.items():
        if not _is_name(name, MAX_OPTION_NAME):
            yield Violation(
                f'{path}["{name[:40]}"]',
                f"the name must have 1 to {MAX_OPTION_NAME} printable characters, no space at its ends",
            )
        else:
            yield from text(value, f'{path}["{name}"]', MAX_OPTION, required=True)


def _links(links: Sequence[MediaLink], path: str, maximum: int) -> Iterator[Violation]:
    yield from at_most(links, path, maximum)
    for position, link in enumerate(links[:maximum]):
        yield from text(link.uri, f"{path}[{position}].uri", MAX_URI, required=True)
        if 0 < len(link.uri) <= MAX_URI and not _is_web_address(link.uri):
            yield Violation(f"{path}[{position}].uri", "must be an http or https address")
        yield from text(link.alt_text, f"{path}[{position}].alt_text", MAX_ALT_TEXT)


def _is_web_address(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not any(map(str.isspace, uri))


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
    "category_id": _category_id,
    "product_type_id": _product_type_id,
    "status": _nothing,
    "tags": _tags,
    "media": _media,
    "attributes": _attributes,
    "variants": _variants,
    "tax_class": _tax_class,
}


def text(text: str, path: str, maximum: int, *, required: bool = False, lines: bool = False) -> Iterator[Violation]:
    """`lines`: it is written rather than named, and may have line breaks, tabs and space around it. Of names, two that
    differ by that alone would look the same."""
    if required and not text.strip():
        yield Violation(path, "is required")
    elif not lines and text != text.strip():
        yield Violation(path, "must not begin or end with white space")
    elif len(text) > maximum:
        yield Violation(path, f"has {len(text):,} characters, over {maximum:,}")
    elif not printable(text.translate(_LAYOUT) if lines else text):
        yield Violation(path, f"must not hold control characters{'' if lines else ' or line breaks'}")


def _is_name(text: str, maximum: int) -> bool:
    return bool(text) and text == text.strip() and len(text) <= maximum and printable(text)


def at_most(items: Sequence[object], path: str, maximum: int) -> Iterator[Violation]:
    if len(items) > maximum:
        yield Violation(path, f"has {len(items)}, over {maximum}")


def _size(details: Details) -> int:
    texts = [details.name, details.description, details.brand, *details.tags, *details.attributes]
    texts += [value for value in details.attributes.values() if isinstance(value, str)]
    links = [*details.media, *(link for variant in details.variants for link in variant.media)]
    texts += [part for link in links for part in (link.uri, link.alt_text)]
    for variant in details.variants:
        texts += (variant.sku, variant.name, *variant.eans, *variant.options, *variant.options.values())
    return len("".join(texts).encode())
