"""Rows of a CSV file, by a mapping from its columns to the fields of ops.rows. The mapping is a TOML file:

    delimiter = ";"                     # "," if left out
    encoding = "cp1252"                 # "utf-8" if left out
    decimal = ","                       # "." if left out

    [columns]                           # field = heading of its column
    sku = "Article"
    product_id = "Parent article"       # rows of one product that follow one another are its variants
    name = "Title"
    price = "Price"
    ean = "EAN"
    category_path = "Category"

    [constants]                         # field = the same in all rows
    currency = "EUR"

    [separators]                        # for fields that are lists; without one, a cell is one element
    category_path = ">"

    [attributes]                        # name = heading, or heading and kind: text, number or boolean
    material = "Material"
    height = { column = "Height (mm)", kind = "number" }

    [options]                           # name = heading
    colour = "Colour"

An empty cell is nothing. What isn't a variant's own, such as a name or an attribute, may be said by any of a product's
lines, or by several the same; where they differ, the product is rejected. So is one whose lines don't follow one
another, or stand beside a line that can't be read: it may be one of them, and a part must not replace the whole.
"""

import codecs
import csv
import gzip
import re
import sqlite3
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any

from ops.rows import BadRow

_LISTS = ("category_path", "tags", "ean", "media")
_FLAGS = ("untracked",)
_SINGLE = (
    "sku", "product_id", "name", "description", "brand", "product_type_id", "status", "category_id", "image_url", "mpn",
    "released", "price", "currency", "list_price", "variant_name", "tax_class",
)  # fmt: skip
_KINDS = ("text", "number", "boolean")
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Python's own numbers may be nan or have underscores.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# Of a cell, and of a line.
_MAX_TEXT = 16 * 1024 * 1024
# More variants than the catalog takes of one product: what has more lines isn't held together.
_MAX_LINES = 1_000

# What a damaged archive raises, or a file that isn't one.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How to read a CSV file: headings by field, by attribute with the kind of its values, and by option."""

    columns: Mapping[str, str]
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    separators: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","
    encoding: str = "utf-8-sig"
    decimal: str = "."

    @property
    def headings(self) -> set[str]:
        return {*self.columns.values(), *(column for column, _ in self.attributes.values()), *self.options.values()}


def read_mapping(path: Path) -> TableMapping:
    """Raises ValueError that names every fault."""
    try:
        given = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a TOML file: {error}") from error
    tables = {name: given.pop(name, {}) for name in ("columns", "attributes", "options", "constants", "separators")}
    settings = {name: given.pop(name) for name in ("delimiter", "encoding", "decimal") if name in given}
    faults = [f"{name} is not a known setting" for name in given]
    faults += [f"[{name}] must be a table" for name, table in tables.items() if not isinstance(table, dict)]
    faults += [f"{name} must be text" for name, value in settings.items() if not isinstance(value, str)]
    if faults:
        raise ValueError(f"{path.name}: {'; '.join(faults)}")
    for name in ("columns", "constants", "separators"):
        known = _LISTS if name == "separators" else (*_LISTS, *_FLAGS, *_SINGLE)
        faults += [f"[{name}] {key} is not a known field" for key in tables[name] if key not in known]
    for name in ("columns", "constants", "separators", "options"):
        faults += [f"[{name}] {key} must be text" for key, value in tables[name].items() if not isinstance(value, str)]
    attributes: dict[str, tuple[str, str]] = {}
    for key, value in tables["attributes"].items():
        match value:
            case str():
                attributes[key] = value, "text"
            case {"column": str(column), "kind": str(kind)} if kind in _KINDS and len(value) == 2:
                attributes[key] = column, kind
            case _:
                faults.append(f"[attributes] {key} must be a heading, or column and kind ({', '.join(_KINDS)})")
    if len(settings.get("delimiter", ",")) != 1:
        faults.append("delimiter must be one character")
    if (encoding := settings.get("encoding")) is not None and not _of_text(encoding):
        faults.append(f"encoding {encoding!r} is not known")
    if faults:
        raise ValueError(f"{path.name}: {'; '.join(faults)}")
    return TableMapping(**{**tables, "attributes": attributes}, **settings)


def _of_text(encoding: str) -> bool:
    """Whether text has such an encoding: not every codec is one."""
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        return False
    return True


def table_rows(file: IO[bytes], mapping: TableMapping) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The products of a file, each with the number of its first line, as objects of ops.rows or with what is wrong.
    The rest of a file that can't be read any further is one line. It is read twice where products
    have several lines.

    Raises ValueError where the columns of the mapping aren't in the file, each once.
    """
    csv.field_size_limit(_MAX_TEXT)
    unsound = _Unsound(_lines(file, mapping) if "product_id" in mapping.columns else ())
    file.seek(0)
    for product_id, group in groupby(_lines(file, mapping), key=lambda line: line.product_id or line.number):
        lines, more = _up_to(_MAX_LINES, group)
        faults = unsound.faults(product_id) if isinstance(product_id, str) else []
        if more:
            faults.append(f"product {product_id} has {len(lines) + more:,} lines, over {_MAX_LINES:,}")
            yield lines[0].number, BadRow(faults)
            continue
        rows = []
        for line in lines:
            try:
                rows.append(line.row(mapping))
            except BadRow as bad:
                faults.append(f"line {line.number}: {bad}" if len(lines) > 1 else str(bad))
        if not faults and len(rows) > 1:
            faults += _differences(lines, rows)
        yield lines[0].number, BadRow(faults) if faults else rows[0] if len(rows) == 1 else _together(rows)


def _up_to(most: int, lines: Iterator["_Line"]) -> tuple[list["_Line"], int]:
    """The first of the lines, and how many more there are."""
    return list(islice(lines, most)), sum(1 for _ in lines)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the table under the number of its first line in the file. `product_id` is "" where it is a product by
    itself, None where its product can't be told; `fault` is why it can't be read, if it can't."""

    number: int
    product_id: str | None
    cells: Mapping[str, str]
    fault: str = ""

    def row(self, mapping: TableMapping) -> dict[str, Any]:
        if self.fault:
            raise BadRow([self.fault])
        return _row(self.cells, mapping)


class _Unsound:
    """The products whose lines aren't one whole: in a temporary file, so that memory doesn't grow with the table."""

    def __init__(self, lines: Iterable[_Line]) -> None:
        self._known = sqlite3.connect("")
        self._known.execute("CREATE TABLE seen (product_id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._known.execute("CREATE TABLE unsound (product_id TEXT, fault TEXT, UNIQUE (product_id, fault))")
        before = _Line(0, "", {})
        for line in lines:
            if line.product_id is None:
                self._doubt(before.product_id, line)
            elif line.product_id and line.product_id != before.product_id:
                if not self._known.execute("INSERT OR IGNORE INTO seen VALUES (?)", (line.product_id,)).rowcount:
                    self._add(line.product_id, "has lines that don't follow one another")
                if before.product_id is None:
                    self._doubt(line.product_id, before)
            before = line

    def faults(self, product_id: str) -> list[str]:
        found = self._known.execute("SELECT fault FROM unsound WHERE product_id = ? ORDER BY rowid", (product_id,))
        return [f"product {product_id} {fault}" for (fault,) in found]

    def _doubt(self, product_id: str | None, line: _Line) -> None:
        if product_id:
            self._add(product_id, f"may have line {line.number} too, which can't be read")

    def _add(self, product_id: str, fault: str) -> None:
        self._known.execute("INSERT OR IGNORE INTO unsound VALUES (?, ?)", (product_id, fault))


class _Counted:
    """A file's lines, and how many there were. Raises csv.Error for one that is too long, and goes on after it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not (line := self._file.readline(_MAX_TEXT)):
            raise StopIteration
        self.count += 1
        if len(line) == _MAX_TEXT and not line.endswith(("\r", "\n")):
            while (rest := self._file.readline(_MAX_TEXT)) and not rest.endswith(("\r", "\n")):
                pass
            raise csv.Error(f"the line has over {_MAX_TEXT:,} characters")
        return line


def _lines(file: IO[bytes], mapping: TableMapping) -> Iterator[_Line]:
    # What isn't of the encoding is kept as surrogates, which make their own line a bad one and no other.
    text = TextIOWrapper(file, mapping.encoding, errors="surrogateescape", newline="")
    lines = _Counted(text)
    reader = csv.reader(lines, delimiter=mapping.delimiter, strict=True)
    try:
        headings = _headings(reader, mapping)
        column = mapping.columns.get("product_id")
        unknown = None if column else ""
        while True:
            number = lines.count + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield _Line(number, unknown, {}, str(error))
                continue
            # An encoding that ASCII isn't a part of has no room for surrogates.
            except (*DAMAGED, UnicodeDecodeError) as error:
                yield _Line(number, unknown, {}, f"the file can't be read from here on: {error}")
                return
            if not cells:
                continue
            named = dict(zip(headings, cells, strict=False))
            product_id = _cell(named, column) if column else ""
            if len(cells) != len(headings):
                # Whatever is where the product should be may be another cell.
                yield _Line(number, unknown, {}, f"has {len(cells)} cells, and there are {len(headings)} columns")
            elif not _encodes(product_id):
                yield _Line(number, unknown, {}, f"product_id ({column}): is not of the encoding {mapping.encoding}")
            else:
                yield _Line(number, product_id, named)
    finally:
        text.detach()


def _headings(reader: Iterator[list[str]], mapping: TableMapping) -> list[str]:
    try:
        headings = next((cells for cells in reader if cells), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"the file's headings can't be read: {error}") from error
    if missing := mapping.headings - {*headings}:
        raise ValueError(f"the file has no column {', '.join(sorted(missing))}")
    if several := {heading for heading in mapping.headings if headings.count(heading) > 1}:
        raise ValueError(f"the file has more than one column {', '.join(sorted(several))}")
    return headings


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# A variant's own fields, by what a line calls them.
_OWN = {"sku": "sku", "price": "price", "currency": "currency", "list_price": "list_price", "ean": "ean",
        "untracked": "untracked", "options": "options", "variant_name": "name"}  # fmt: skip


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One product of what its variants' lines say."""
    shared: dict[str, Any] = {}
    for row in rows:
        shared |= {key: value for key, value in row.items() if key not in _OWN}
    if attributes := {name: value for row in rows for name, value in row.get("attributes", {}).items()}:
        shared["attributes"] = attributes
    return shared | {"variants": [{name: row[key] for key, name in _OWN.items() if key in row} for row in rows]}


def _differences(lines: Sequence[_Line], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where a line says of the product what one before it doesn't."""
    said: dict[str, tuple[int, Any]] = {}
    faults = []
    for line, row in zip(lines, rows, strict=True):
        named = {key: value for key, value in row.items() if key not in _OWN and key != "attributes"}
        named |= {f'attributes["{name}"]': value for name, value in row.get("attributes", {}).items()}
        for name, value in named.items():
            number, other = said.setdefault(name, (line.number, value))
            if other != value:
                faults.append(f"line {line.number}: {name}: differs from line {number}")
    return faults


def _row(cells: Mapping[str, str], mapping: TableMapping) -> dict[str, Any]:
    faults: list[str] = []
    row: dict[str, Any] = dict(mapping.constants)
    for name, column in mapping.columns.items():
        if cell := _cell(cells, column):
            row[name] = cell
    for name in row.keys() & {"price", "list_price"}:
        try:
            row[name] = _number(row[name], mapping)
        except ValueError as error:
            faults.append(f"{name}: {error}")
    for name in row.keys() & {*_LISTS}:
        separator = mapping.separators.get(name)
        row[name] = [part.strip() for part in row[name].split(separator)] if separator else [row[name]]
    for name in row.keys() & {*_FLAGS}:
        row[name] = _boolean(row[name], name, faults)
    attributes = {}
    for name, (column, kind) in mapping.attributes.items():
        if cell := _cell(cells, column):
            attributes[name] = _value(cell, kind, f"{name} ({column})", mapping, faults)
    if faults:
        raise BadRow(faults)
    options = {name: cell for name, column in mapping.options.items() if (cell := _cell(cells, column))}
    return row | ({"attributes": attributes} if attributes else {}) | ({"options": options} if options else {})


def _cell(cells: Mapping[str, str], column: str) -> str:
    return cells.get(column, "").strip()


def _value(cell: str, kind: str, name: str, mapping: TableMapping, faults: list[str]) -> str | float | bool:
    if kind == "boolean":
        return _boolean(cell, name, faults)
    if kind == "number":
        try:
            if _NUMBER.fullmatch(number := _number(cell, mapping)):
                return float(number)
            faults.append(f"{name}: {cell[:40]!r} is not a number")
        except ValueError as error:
            faults.append(f"{name}: {error}")
    return cell


def _number(cell: str, mapping: TableMapping) -> str:
    """With a point for the decimals. Raises ValueError where a point is something else: it may group thousands."""
    if mapping.decimal == ".":
        return cell
    if "." in cell:
        raise ValueError(f"{cell[:40]!r} has a point, and decimals are written with {mapping.decimal!r}")
    return cell.replace(mapping.decimal, ".")


def _boolean(cell: str, name: str, faults: list[str]) -> bool:
    value = _WORDS.get(cell.lower())
    if value is None:
        faults.append(f"{name}: {cell[:40]!r} is neither true nor false")
    return value is True
