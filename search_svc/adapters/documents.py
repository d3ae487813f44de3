"""Domain objects as documents of the engine, and back without loss."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chassis.money import Money
from search_svc.adapters.terms import (
    attribute_term,
    level_term,
    number_key,
    number_step,
    price_key,
    price_step,
    shown_value,
)
from search_svc.domain.popularity import Popularity
from search_svc.domain.product import (
    AttributeValue,
    Availability,
    Category,
    Product,
    SkuAvailability,
    SkuRecord,
    Variant,
    category_name,
)
from search_svc.domain.words import joined, measures, thing, words

_LONGEST_VALUE = 60
_PART_NUMBER = re.compile(r"mpn|(?:part|model|oem|manufacturer).*(?:number|code|no)|ean|gtin|upc", re.IGNORECASE)
_PLAIN = re.compile(r"\W|_")


def product_to_document(product: Product) -> dict[str, Any]:
    document: dict[str, Any] = {
        "product_id": product.product_id,
        "version": product.version,
        "deleted": product.deleted,
        "shown": product.active and not product.deleted,
    }
    if product.deleted:
        return document
    price_from = product.price_from
    rest = {
        "description": product.description,
        "category_path": list(product.category.path),
        "tags": list(product.tags),
        "attributes": [_attribute_to_document(name, v) for name, v in sorted(product.attributes.items())],
        "variants": [_variant_to_document(variant) for variant in product.variants],
        # No SKU as a key: engines take a dot in it for a path.
        "availability": [[sku, a.level.value, a.version] for sku, a in sorted(product.availability.items())],
        "popularity_version": product.popularity.version,
    }
    return document | {
        "name": product.name,
        "brand": product.brand,
        "category_id": product.category.category_id,
        "category_version": product.category.version,
        "categories": product.categories,
        "title": " ".join([product.name, *joined(product.name), *measures(product.name)]),
        "things": sorted(_things(product)),
        "description": product.description,
        "values": " ".join(_values(product)),
        "text": _text(product),
        "codes": sorted(_codes(product)),
        "attributes": [attribute_term(name, shown_value(v)) for name, v in sorted(product.attributes.items())],
        "popularity": product.popularity.value,
        "in_stock": product.best_availability is not Availability.OUT,
        "prices": sorted({price_key(v.price.currency, v.price.nanos) for v in product.variants}),
        "price_from": price_key(price_from.currency, price_from.nanos) if price_from else None,
        **_counted(product),
        "spelling": " ".join(filter(None, (product.name, product.brand, *product.category.path))),
        "created": product.created,
        "rest": rest,
    }


def product_from_document(source: Mapping[str, Any]) -> Product:
    if source["deleted"]:
        return Product(source["product_id"], source["version"], deleted=True)
    rest = source["rest"]
    return Product(
        product_id=source["product_id"],
        version=source["version"],
        active=source["shown"],
        created=source["created"],
        name=source["name"],
        description=rest.get("description", ""),
        brand=source["brand"],
        category=Category(source["category_id"], tuple(rest["category_path"]), source["category_version"]),
        tags=tuple(rest["tags"]),
        attributes={entry["name"]: _attribute_value(entry) for entry in rest["attributes"]},
        variants=tuple(_variant_from_document(entry) for entry in rest["variants"]),
        availability={
            sku: SkuAvailability(Availability(level), version) for sku, level, version in rest["availability"]
        },
        popularity=Popularity(float(source["popularity"]), rest["popularity_version"]),
    )


def sku_to_document(record: SkuRecord) -> dict[str, Any]:
    document: dict[str, Any] = {"product_ids": sorted(record.product_ids)}
    if record.availability:
        document |= {"version": record.availability.version, "level": record.availability.level.value}
    return document


def sku_from_document(sku: str, source: Mapping[str, Any]) -> SkuRecord:
    known = "version" in source
    return SkuRecord(
        sku,
        SkuAvailability(Availability(source["level"]), source["version"]) if known else None,
        frozenset(source["product_ids"]),
    )


def category_to_document(category: Category) -> dict[str, Any]:
    return {"version": category.version, "path": list(category.path)}


def category_from_document(category_id: str, source: Mapping[str, Any]) -> Category:
    return Category(category_id, tuple(source["path"]), source["version"])


def _counted(product: Product) -> dict[str, Any]:
    """What facets choose from and count by."""
    numbers = {name: v for name, v in sorted(product.attributes.items()) if isinstance(v, float)}
    return {
        "availability": product.best_availability.name,
        "category_levels": [level_term(depth, path) for depth, path in enumerate(product.categories, 1)],
        "numbers": [attribute_term(name, number_key(number)) for name, number in numbers.items()],
        "number_steps": [attribute_term(name, number_step(number)) for name, number in numbers.items()],
        "price_steps": sorted({price_step(v.price.currency, v.price.nanos) for v in product.variants}),
    }


def code_forms(text: str) -> set[str]:
    """What a code may be written like: as it is, with nothing but letters and digits, without the zeros a number may
    have in front."""
    plain = _PLAIN.sub("", text)
    return {text, plain, plain.lstrip("0") if plain.isdigit() else plain} - {""}


def _codes(product: Product) -> set[str]:
    codes = {code for variant in product.variants for code in (variant.sku, *variant.eans)}
    # A number of two digits, or a name, is no code.
    codes |= {
        value
        for name, value in product.attributes.items()
        if isinstance(value, str)
        and _PART_NUMBER.search(name)
        and 4 <= len(value) <= _LONGEST_VALUE
        and any(character.isdigit() for character in value)
    }
    return {form for code in codes for form in code_forms(code)}


def _things(product: Product) -> set[str]:
    """What it is, in a word, by its name and by its category."""
    name = product.name
    if product.brand and name.lower().startswith(product.brand.lower()):
        name = name[len(product.brand) :]
    besides = [
        word
        for key, value in product.attributes.items()
        if isinstance(value, str) and "type" not in key and len(value) < _LONGEST_VALUE and not _PART_NUMBER.search(key)
        for word in words(value)
    ]
    return {thing(name, besides), *(thing(leaf) for leaf in product.category.path[-1:])} - {""}


def _values(product: Product) -> Iterator[str]:
    for name, value in sorted(product.attributes.items()):
        if isinstance(value, str):
            yield value
        elif value is True:
            yield name.replace("_", " ")


def _text(product: Product) -> str:
    """All that a product is found by."""
    parts = [product.name, product.brand, category_name(product.category.path), *product.tags, product.description]
    parts += _values(product)
    for variant in product.variants:
        parts += (variant.name, variant.sku, *variant.eans, *variant.options.values())
    text = " ".join(filter(None, parts))
    return " ".join([text, *joined(product.name), *joined(product.description), *measures(text)])


def _attribute_to_document(name: str, value: AttributeValue) -> dict[str, Any]:
    kind = "flag" if isinstance(value, bool) else "number" if isinstance(value, float) else "text"
    return {"name": name, kind: value}


def _attribute_value(entry: Mapping[str, Any]) -> AttributeValue:
    if "number" in entry:
        return float(entry["number"])
    if "flag" in entry:
        return bool(entry["flag"])
    return str(entry["text"])


def _variant_to_document(variant: Variant) -> dict[str, Any]:
    return {
        "sku": variant.sku,
        "name": variant.name,
        "currency": variant.price.currency,
        "nanos": str(variant.price.nanos),
        "eans": list(variant.eans),
        "untracked": variant.untracked,
        "options": [[name, value] for name, value in sorted(variant.options.items())],
    }


def _variant_from_document(entry: Mapping[str, Any]) -> Variant:
    return Variant(
        sku=entry["sku"],
        price=Money(entry["currency"], int(entry["nanos"])),
        name=entry["name"],
        eans=tuple(entry["eans"]),
        untracked=entry["untracked"],
        options=dict(entry["options"]),
    )
