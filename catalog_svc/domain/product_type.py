"""Product types: which attributes their products have, and what the values may be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from catalog_svc.domain.product import AttributeValue
from catalog_svc.domain.rules import MAX_ATTRIBUTE_NAME, MAX_ATTRIBUTE_TEXT, at_most, attribute_path, text
from chassis.errors import Violation

MAX_NAME = 200
MAX_DEFINITIONS = 200
MAX_VALUES = 500
MAX_UNIT = 20


class Kind(Enum):
    """What the values of an attribute are."""

    TEXT = "TEXT"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    ENUM = "ENUM"


@dataclass(frozen=True, slots=True)
class Definition:
    """What an attribute may be. `unit` is of numbers, `values` of enums alone; `kind` is None where it wasn't said."""

    name: str
    kind: Kind | None
    unit: str = ""
    values: tuple[str, ...] = ()
    required: bool = False
    facet: bool = False
    searchable: bool = False


@dataclass(frozen=True, slots=True)
class ProductType:
    product_type_id: str
    name: str
    definitions: tuple[Definition, ...]
    version: int
    etag: str
    create_time: datetime
    update_time: datetime


def value_violations(type_: ProductType, attributes: Mapping[str, AttributeValue]) -> list[Violation]:
    """One for each value that its definition doesn't allow, and for each required one that is missing."""
    faults: list[Violation] = []
    for definition in type_.definitions:
        value = attributes.get(definition.name)
        if fault := _fault(definition, value, type_):
            faults.append(Violation(attribute_path(definition.name), fault))
    return faults


def _fault(definition: Definition, value: AttributeValue | None, type_: ProductType) -> str:
    if value is None or value == "":
        return f"is required of type {type_.product_type_id}" if definition.required else ""
    match definition.kind, value:
        case Kind.TEXT, str():
            return ""
        case Kind.BOOLEAN, bool():
            return ""
        case Kind.NUMBER, float() | int() if not isinstance(value, bool):
            return ""
        case Kind.ENUM, str():
            return "" if value in definition.values else f"must be one of {_shown(definition.values)}"
    wanted = {Kind.TEXT: "text", Kind.BOOLEAN: "a boolean", Kind.NUMBER: "a number", Kind.ENUM: "text"}
    unit = f" of {definition.unit}" if definition.unit else ""
    return f"must be {wanted[definition.kind or Kind.TEXT]}{unit}"


def _shown(values: tuple[str, ...], most: int = 10) -> str:
    return ", ".join(map(repr, values[:most])) + (", …" if len(values) > most else "")


def name_violations(name: str) -> list[Violation]:
    return list(text(name, "name", MAX_NAME, required=True))


def definition_violations(definitions: tuple[Definition, ...]) -> list[Violation]:
    """All that is wrong with the definitions of a type, each with its path in the ProductType message."""
    faults = list(at_most(definitions, "attributes", MAX_DEFINITIONS))
    first: dict[str, int] = {}
    for position, definition in enumerate(definitions[:MAX_DEFINITIONS]):
        path = f"attributes[{position}]"
        faults += _definition(definition, path)
        if (earlier := first.setdefault(definition.name, position)) != position:
            faults.append(Violation(f"{path}.name", f"{definition.name!r} is already that of attributes[{earlier}]"))
    return faults


def _definition(definition: Definition, path: str) -> Iterator[Violation]:
    yield from text(definition.name, f"{path}.name", MAX_ATTRIBUTE_NAME, required=True)
    if definition.kind is None:
        yield Violation(f"{path}.kind", "is required")
    if definition.unit and definition.kind is not Kind.NUMBER:
        yield Violation(f"{path}.unit", "is for numbers alone")
    yield from text(definition.unit, f"{path}.unit", MAX_UNIT)
    if definition.kind is Kind.ENUM and not definition.values:
        yield Violation(f"{path}.values", "is required of an enum")
    if definition.kind is not Kind.ENUM and definition.values:
        yield Violation(f"{path}.values", "is for enums alone")
    yield from at_most(definition.values, f"{path}.values", MAX_VALUES)
    for number, value in enumerate(definition.values[:MAX_VALUES]):
        yield from text(value, f"{path}.values[{number}]", MAX_ATTRIBUTE_TEXT, required=True, lines=True)
        if value in definition.values[:number]:
            yield Violation(f"{path}.values[{number}]", f"{value[:40]!r} is there already")
