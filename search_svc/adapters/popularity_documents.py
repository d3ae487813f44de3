"""Popularity and orders as documents of the engine, and what the engine knows of them."""

from collections.abc import Mapping
from typing import Any

from search_svc.domain.popularity import Popularity, PopularityRecord, Sale, Sold

VERSION = 1
"""Raised with every change below. Indices of another version belong to another release, which goes on with them."""

POPULARITY = f"product-popularity-v{VERSION}"
SALES = f"product-sales-v{VERSION}"

_KEYWORD = {"type": "keyword"}
_LONG = {"type": "long"}
_LINES = {"product_id": _KEYWORD, "sku": _KEYWORD, "units": _LONG}

SALES_MAPPINGS: Mapping[str, Mapping[str, Any]] = {
    POPULARITY: {"product_id": _KEYWORD, "value": {"type": "float"}, "version": _LONG},
    SALES: {
        "confirmed": _LONG,
        "cancelled": _LONG,
        "lines": {"type": "nested", "properties": _LINES},
        # Of the one document that says who keeps the others; so it is lost with them.
        "holder": _KEYWORD,
        "until": {"type": "double"},
        "filled": {"type": "boolean"},
        "since": _LONG,
    },
}


def popularity_to_document(record: PopularityRecord) -> dict[str, Any]:
    popularity = record.popularity
    return {"product_id": record.product_id, "value": popularity.value, "version": popularity.version}


def popularity_from_document(product_id: str, source: Mapping[str, Any]) -> PopularityRecord:
    return PopularityRecord(product_id, Popularity(float(source["value"]), source["version"]))


def sale_to_document(sale: Sale) -> dict[str, Any]:
    times = {"confirmed": sale.confirmed, "cancelled": sale.cancelled}
    return {name: time for name, time in times.items() if time} | {"lines": [_line(line) for line in sale.lines]}


def sale_from_document(order_id: str, source: Mapping[str, Any]) -> Sale:
    return Sale(
        order_id,
        confirmed=source.get("confirmed", 0),
        lines=tuple(Sold(line.get("product_id", ""), line.get("sku", ""), line["units"]) for line in source["lines"]),
        cancelled=source.get("cancelled", 0),
    )


def _line(line: Sold) -> dict[str, Any]:
    # By either, units are added up.
    known = {"product_id": line.product_id} if line.product_id else {"sku": line.sku}
    return {**known, "units": line.units}
