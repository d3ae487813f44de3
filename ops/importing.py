"""Products from a file of JSON lines into the catalog, through one ImportProducts stream."""

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polymart.catalog.v1 import catalog_service_pb2 as catalog
from polymart.catalog.v1.product_pb2 import AttributeValue, Product, Variant

from chassis.money import Money

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub

TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that didn't go in: its line number in the file, and why."""

    row: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What became of an import; `outcomes` counts rows by CREATED, UPDATED, UNCHANGED and REJECTED."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, row: int, reason: str) -> None:
        self.outcomes["REJECTED"] += 1
        self.rejections.append(Rejection(row, reason))

    @property
    def rows(self) -> int:
        return self.outcomes.total()


def read_products(path: Path, report: ImportReport) -> Iterator[tuple[int, Product]]:
    """The file's products with their line numbers; a line that can't be read is rejected in the report.

    So is the rest of a damaged archive, as one line. Raises OSError for a file that can't be opened.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    with opener(path, "rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield number, product_of(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
                    report.reject(number, reason)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            report.reject(number + 1, f"the file can't be read from here on: {error}")


def product_of(row: dict[str, Any]) -> Product:
    """A row of the file as a product of one variant. Raises ValueError, KeyError or TypeError for what it can't be."""
    if not isinstance(row, dict):
        raise TypeError("a line must hold a JSON object")
    price = Money.parse(row["currency"], row["price"])
    product = Product(
        product_id=row["sku"],
        name=row["name"],
        description=row.get("description", ""),
        brand=row.get("brand") or "",
        category_path=row.get("category_path", []),
        variants=[Variant(sku=row["sku"], price=price.to_proto(), eans=[gtin(code) for code in row.get("ean") or ()])],
    )
    facts = {**row.get("attributes", {})}
    facts.update({name: row[name] for name in ("mpn", "released") if row.get(name)})
    for name, value in facts.items():
        product.attributes[name].CopyFrom(attribute(value))
    return product


def gtin(code: str | int) -> str:
    """The code with the leading zeros that it loses wherever it is kept as a number: they fill it up to the next
    length that a GTIN may have, 8, 12, 13 or 14 digits (GS1 General Specifications, 3.3)."""
    text = str(code)
    length = next((length for length in (8, 12, 13, 14) if len(text) <= length), len(text))
    return text.rjust(length, "0") if text.isdecimal() else text


def attribute(value: object) -> AttributeValue:
    match value:
        case bool():
            return AttributeValue(flag=value)
        case int() | float():
            return AttributeValue(number=value)
        case str():
            return AttributeValue(text=value)
    raise TypeError(f"an attribute must be text, a number or a boolean, not {value!r}")


async def import_products(
    catalog_service: "CatalogServiceAsyncStub",
    rows: Iterable[tuple[int, Product]],
    report: ImportReport,
    on_answer: Callable[[int], None] = lambda count: None,
) -> None:
    """Sends the rows and counts the answers in `report`; `on_answer` hears how many came at once.

    Raises what `rows` raises, once what came before is answered.
    """
    broken: list[Exception] = []

    async def requests() -> AsyncIterator[catalog.ImportProductsRequest]:
        try:
            for number, product in rows:
                yield catalog.ImportProductsRequest(row=number, product=product)
                # Reading a file never waits; answers are to be read meanwhile.
                await asyncio.sleep(0)
        except Exception as error:  # in here it would only cancel the call
            broken.append(error)

    async for response in catalog_service.ImportProducts(requests(), timeout=TIMEOUT):
        for result in response.results:
            if result.outcome == catalog.IMPORT_OUTCOME_REJECTED:
                faults = "; ".join(f"{v.field}: {v.description}" for v in result.violations)
                report.reject(result.row, faults)
            else:
                name = catalog.ImportOutcome.Name(result.outcome)
                report.outcomes[name.removeprefix("IMPORT_OUTCOME_")] += 1
        on_answer(len(response.results))
    if broken:
        raise broken[0]
