"""Filters and facets on the wire: what may be asked for, and ranges there and back."""

import math
from collections.abc import Sequence

from polymart.search.v1 import search_service_pb2 as pb

from chassis.money import Money, is_currency
from chassis.rpc.validation import Validator
from search_svc.domain.product import Availability
from search_svc.domain.query import Facet, FacetValue, NumberRange, PriceRange
from search_svc.protos import availabilities_from_proto

FACETS = 10
_RANGES = 20
_ATTRIBUTES = 50
_VALUES = 200
# The longest value that an attribute may have, and the longest name to count the values of.
_VALUE_LENGTH, _FACET_LENGTH = 7_500, 256


def check_filter(check: Validator, wanted: pb.SearchFilter) -> None:
    """What isn't read by the functions below."""
    check_values(check, wanted.brands, "filter.brands")
    check_values(check, wanted.categories, "filter.categories")
    names = [attribute.name for attribute in wanted.attributes]
    check.check(len(names) <= _ATTRIBUTES, "filter.attributes", f"must be at most {_ATTRIBUTES}")
    seen: set[str] = set()
    for i, attribute in enumerate(wanted.attributes[:_ATTRIBUTES]):
        field = f"filter.attributes[{i}]"
        check.check(attribute.name not in seen, f"{field}.name", "is there already")
        check.check(len(attribute.name) <= _FACET_LENGTH, f"{field}.name", "is too long")
        seen.add(attribute.name)
        check.check(bool(attribute.values or attribute.ranges), f"{field}.values", "is required, or a range")
        check_values(check, attribute.values, f"{field}.values")


def check_values(check: Validator, values: Sequence[str], field: str, most: int = _VALUES) -> None:
    check.check(len(values) <= most, field, f"must be at most {most}")
    for i, value in enumerate(values[:most]):
        check.check(bool(value), f"{field}[{i}]", "is empty")
        check.check(len(value) <= _VALUE_LENGTH, f"{field}[{i}]", "is too long")


def check_facets(check: Validator, names: Sequence[str], field: str) -> None:
    check_values(check, names, field, FACETS)
    for i, name in enumerate(names[:FACETS]):
        check.check(name not in names[:i], f"{field}[{i}]", "is there already")
        check.check(len(name) <= _FACET_LENGTH, f"{field}[{i}]", "is too long")


def read_attributes(check: Validator, wanted: pb.SearchFilter) -> dict[str, tuple[str | NumberRange, ...]]:
    """The values and ranges allowed, by the attribute's name."""
    return {
        attribute.name: (
            *attribute.values,
            *_number_ranges(check, attribute.ranges, f"filter.attributes[{i}].ranges"),
        )
        for i, attribute in enumerate(wanted.attributes)
    }


def read_availabilities(check: Validator, wanted: pb.SearchFilter) -> tuple[Availability, ...]:
    field = "filter.availabilities"
    check.check(len(wanted.availabilities) <= _RANGES, field, f"must be at most {_RANGES}")
    try:
        return availabilities_from_proto(wanted.availabilities)
    except ValueError as error:
        check.check(False, field, str(error))
        return ()


def read_prices(check: Validator, wanted: pb.SearchFilter) -> tuple[PriceRange, ...]:
    ranges = wanted.price_ranges
    check.check(len(ranges) <= _RANGES, "filter.price_ranges", f"must be at most {_RANGES}")
    return tuple(read_price(check, each, f"filter.price_ranges[{i}]") for i, each in enumerate(ranges[:_RANGES]))


def read_price(check: Validator, price: pb.PriceRange, field: str) -> PriceRange:
    bounds: dict[str, int | None] = {}
    for name, given in (
        ("min", price.HasField("min")),
        ("max", price.HasField("max")),
        ("below", price.HasField("below")),
    ):
        path = f"{field}.{name}"
        try:
            amount = Money.from_proto(getattr(price, name)) if given else None
        except ValueError as error:
            check.check(False, path, str(error))
            amount = None
        if amount:
            check.check(amount.currency == price.currency_code, f"{path}.currency_code", "must be that of the range")
            check.check(amount.nanos >= 0, path, "must not be negative")
        bounds[name] = amount.nanos if amount else None
    low, high, below = bounds["min"], bounds["max"], bounds["below"]
    check.check(low is None or high is None or low <= high, f"{field}.max", "must not be below min")
    check.check(low is None or below is None or low < below, f"{field}.below", "must be above min")
    check_currency(check, price.currency_code, f"{field}.currency_code")
    return PriceRange(price.currency_code, low, high, below)


def check_currency(check: Validator, code: str, field: str) -> None:
    check.check(not code or is_currency(code), field, "must be a three-letter ISO 4217 code")


def _number_ranges(check: Validator, ranges: Sequence[pb.NumberRange], field: str) -> list[NumberRange]:
    check.check(len(ranges) <= _RANGES, field, f"must be at most {_RANGES}")
    found = []
    for i, each in enumerate(ranges[:_RANGES]):
        path = f"{field}[{i}]"
        low = each.min if each.HasField("min") else None
        high = each.max if each.HasField("max") else None
        below = each.below if each.HasField("below") else None
        for name, bound in (("min", low), ("max", high), ("below", below)):
            check.check(bound is None or math.isfinite(bound), f"{path}.{name}", "must be a finite number")
        check.check((low, high, below) != (None, None, None), path, "must have a bound")
        check.check(low is None or high is None or low <= high, f"{path}.max", "must not be below min")
        check.check(low is None or below is None or low < below, f"{path}.below", "must be above min")
        found.append(NumberRange(low, high, below))
    return found


def facet_message(facet: Facet) -> pb.Facet:
    return pb.Facet(name=facet.name, values=map(_value_message, facet.values), unit=facet.unit)


def _value_message(value: FacetValue) -> pb.FacetValue:
    message = pb.FacetValue(value=value.value, count=value.count, depth=value.depth)
    match value.range:
        case PriceRange():
            message.price_range.CopyFrom(_price_message(value.range))
        case NumberRange():
            # Each bound only where there is one.
            bounds = {"min": value.range.minimum, "max": value.range.maximum, "below": value.range.below}
            message.number_range.CopyFrom(pb.NumberRange(**bounds))
    return message


def _price_message(price: PriceRange) -> pb.PriceRange:
    def money(nanos: int | None) -> Money | None:
        return None if nanos is None else Money(price.currency, nanos)

    low, high, below = map(money, (price.minimum, price.maximum, price.below))
    return pb.PriceRange(
        currency_code=price.currency,
        min=low.to_proto() if low else None,
        max=high.to_proto() if high else None,
        below=below.to_proto() if below else None,
    )
