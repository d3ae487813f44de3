"""Products from a file into the catalog, through one ImportProducts stream. No process grows with the file."""

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from polymart.catalog.v1 import catalog_service_pb2 as catalog

from ops.rows import BadRow, request_of
from ops.tables import TableMapping, table_rows

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub

T = TypeVar("T")

TIMEOUT = 3_600.0
ACTOR = (("polymart-actor", "polymart import"),)

# What a file of nothing but bad rows may take of memory.
MAX_REJECTIONS = 10_000
_MAX_LINE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that didn't go in: its line number in the file, and why."""

    row: int
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What became of an import; `outcomes` counts rows by CREATED, UPDATED, UNCHANGED and REJECTED, `rejections` has
    the first MAX_REJECTIONS of these."""

    outcomes: Counter[str] = field(default_factory=Counter)
    rejections: list[Rejection] = field(default_factory=list)

    def reject(self, row: int, reason: str) -> None:
        self.outcomes["REJECTED"] += 1
        if len(self.rejections) < MAX_REJECTIONS:
            self.rejections.append(Rejection(row, reason))

    @property
    def rows(self) -> int:
        return self.outcomes.total()

    @property
    def written(self) -> int:
        return self.outcomes["CREATED"] + self.outcomes["UPDATED"]


def read_products(
    path: Path, report: ImportReport, mapping: TableMapping | None = None
) -> Iterator[catalog.ImportProductsRequest]:
    """The file's rows under their line numbers, of JSON lines or, with a mapping, of CSV; gzipped where the name ends
    so. One that can't be read is rejected in the report, and so is the rest of a damaged archive, as one line.

    Raises OSError for a file that can't be opened, ValueError for a table without the columns of the mapping.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    with cast(IO[bytes], opener(path, "rb")) as file:
        try:
            for number, row in _table(file, mapping) if mapping else _objects(file):
                try:
                    if isinstance(row, BadRow):
                        raise row
                    yield request_of(number, row)
                except BadRow as bad:
                    report.reject(number, str(bad))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            report.reject(number + 1, f"the file can't be read from here on: {error}")


def _table(file: IO[bytes], mapping: TableMapping) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    # What isn't of the encoding is kept as surrogates, which make their own row a bad one and no other.
    text = TextIOWrapper(file, mapping.encoding, errors="surrogateescape", newline="")
    return table_rows(text, mapping)


def _objects(file: IO[bytes]) -> Iterator[tuple[int, object]]:
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow([f"the line has over {_MAX_LINE:,} bytes"])
        elif line.strip():
            yield number, _object(line)


def _object(line: bytes) -> object:
    try:
        return json.loads(line.decode(), parse_float=Decimal, parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return BadRow([f"is not valid UTF-8: byte {error.start + 1} is {line[error.start]:#04x}"])
    except RecursionError:
        return BadRow(["is nested too deeply"])
    except json.JSONDecodeError as error:
        return BadRow([f"is not JSON: {error}"])
    except BadRow as bad:
        return bad
    except (ValueError, ArithmeticError):  # of int() and Decimal()
        return BadRow(["has a number with too many digits"])


def _no_number(text: str) -> float:
    raise BadRow([f"is not JSON: {text} is no number"])


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


async def import_products(
    catalog_service: "CatalogServiceAsyncStub",
    rows: Iterable[catalog.ImportProductsRequest],
    report: ImportReport,
    on_answer: Callable[[int], None] = lambda count: None,
) -> None:
    """Sends the rows and counts the answers in `report`; `on_answer` hears how many came at once.

    Raises what `rows` raises, once what came before is answered.
    """
    broken: list[Exception] = []

    async def requests() -> AsyncIterator[catalog.ImportProductsRequest]:
        try:
            for row in rows:
                yield row
                # Reading a file never waits; answers are to be read meanwhile.
                await asyncio.sleep(0)
        except Exception as error:  # in here it would only cancel the call
            broken.append(error)

    async for response in catalog_service.ImportProducts(requests(), timeout=TIMEOUT, metadata=ACTOR):
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
