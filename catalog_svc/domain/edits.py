"""Changes of parts of a product, as the paths of an update mask name them.

    name                    a field of the product
    attributes.NAME         one attribute
    variants.SKU            one variant
    variants.SKU.price      one field of a variant

A name or SKU that holds a dot or a backtick stands between backticks, and its own are doubled: attributes.`size.inner`,
attributes.`a``b`. What a path names and the new values
don't have is removed.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from catalog_svc.domain.product import FIELDS, VARIANT_FIELDS, Details, Variant
from catalog_svc.domain.rules import attribute_path
from chassis.errors import Violation

_PART = re.compile(r"`((?:[^`]|``)+)`|([^.`]+)")


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change: a field of the product, in it one `key` (an attribute's name or a SKU), of it one `part`."""

    field: str
    key: str = ""
    part: str = ""


def parse(path: str) -> Edit:
    """Raises ValueError for what can't be changed."""
    parts: list[str] = []
    position = 0
    while match := _PART.match(path, position):
        parts.append(match[2] or match[1].replace("``", "`"))
        position = match.end() + 1
        if match.end() == len(path) or path[match.end()] != ".":
            break
    if not match or match.end() != len(path):
        raise ValueError(f"{path!r} is not a path")
    match parts:
        case [field] if field in FIELDS:
            return Edit(field)
        case ["attributes" | "variants" as field, key]:
            return Edit(field, key)
        case ["variants", sku, part] if part in VARIANT_FIELDS:
            return Edit("variants", sku, part)
    raise ValueError(f"{path!r} can't be changed")


def applied(edits: Iterable[Edit], before: Details, given: Details) -> Details:
    """`before` with what `edits` name taken from `given`. Raises ValueError for a field of a variant that one of both
    doesn't have."""
    details = before
    for edit in edits:
        if not edit.key:
            details = replace(details, **{edit.field: getattr(given, edit.field)})
        elif edit.field == "attributes":
            attributes = {name: value for name, value in details.attributes.items() if name != edit.key}
            if edit.key in given.attributes:
                attributes[edit.key] = given.attributes[edit.key]
            details = replace(details, attributes=attributes)
        else:
            details = replace(details, variants=_variants(edit, details.variants, given.variants))
    return details


def _variants(edit: Edit, before: Sequence[Variant], given: Sequence[Variant]) -> tuple[Variant, ...]:
    old = next((variant for variant in before if variant.sku == edit.key), None)
    new = next((variant for variant in given if variant.sku == edit.key), None)
    if edit.part:
        if old is None:
            raise ValueError(f"the product has no variant {edit.key!r}")
        if new is None:
            raise ValueError(f"the new values have no variant {edit.key!r}")
        new = replace(old, **{edit.part: getattr(new, edit.part)})
    if old is None:
        return (*before, new) if new else tuple(before)
    return tuple(new if variant is old else variant for variant in before if variant is not old or new)  # type: ignore[misc]


def touches(edits: Iterable[Edit], given: Details, fault: Violation) -> bool:
    """Whether `fault`, which is of a field of `given`, lies in what `edits` name."""
    return any(_lies_in(fault.field, prefix) for edit in edits for prefix in _places(edit, given))


def _places(edit: Edit, given: Details) -> list[str]:
    if not edit.key:
        return [edit.field]
    if edit.field == "attributes":
        return [attribute_path(edit.key)]
    part = f".{edit.part}" if edit.part else ""
    return [f"variants[{n}]{part}" for n, variant in enumerate(given.variants) if variant.sku == edit.key]


def _lies_in(field: str, place: str) -> bool:
    return field == place or field.startswith((f"{place}.", f"{place}["))
