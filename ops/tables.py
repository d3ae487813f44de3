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

An empty cell is nothing.
"""

import codecs
import csv
import sqlite3
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
_MAX_CELL = 16 * 1024 * 1024
# More variants than the catalog takes of one product: what has more lines isn't held together.
_MAX_LINES = 1_000


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


def table_rows(file: IO[str], mapping: TableMapping) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """The products of a file, each with the number of its first line, as objects of ops.rows or with what is wrong.

    Raises ValueError where a column of the mapping isn't in the file.
    """
    csv.field_size_limit(_MAX_CELL)
    reader = csv.DictReader(file, delimiter=mapping.delimiter, strict=True)
    if missing := mapping.headings - set(reader.fieldnames or ()):
        raise ValueError(f"the file has no column {', '.join(sorted(missing))}")
    seen = _Seen()
    for product_id, group in groupby(_lines(reader, mapping), key=lambda line: line.product_id or line.number):
        lines, more = _up_to(_MAX_LINES, group)
        number = lines[0].number
        faults = [f"line {line.number}: {line.row}" for line in lines if isinstance(line.row, BadRow)]
        rows = [line.row for line in lines if not isinstance(line.row, BadRow)]
        if isinstance(product_id, str) and not seen.first(product_id):
            # As a product of its own it would replace the one that the lines before made.
            yield number, BadRow([f"product {product_id} stands further up; its lines must follow one another"])
            continue
        if more:
            yield number, BadRow([f"product {product_id} has {len(lines) + more:,} lines, over {_MAX_LINES:,}"])
        elif faults:
            yield number, BadRow(faults)
        else:
            yield number, rows[0] if len(rows) == 1 else _together(rows)


def _up_to(most: int, lines: Iterator["_Line"]) -> tuple[list["_Line"], int]:
    """The first of the lines, and how many more there are."""
    return list(islice(lines, most)), sum(1 for _ in lines)


class _Seen:
    """Which products a file had so far: in a temporary file, so that memory doesn't grow with it."""

    def __init__(self) -> None:
        self._known = sqlite3.connect("")
        self._known.execute("CREATE TABLE seen (product_id BLOB PRIMARY KEY) WITHOUT ROWID")

    def first(self, product_id: str) -> bool:
        """Whether it is seen for the first time, that is now."""
        key = product_id.encode(errors="surrogatepass")
        return self._known.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1


@dataclass(frozen=True, slots=True)
class _Line:
    """A line's number, the product that it says it is of, if any, and what it holds or what is wrong with it."""

    number: int
    product_id: str
    row: dict[str, Any] | BadRow


def _lines(reader: "csv.DictReader[str]", mapping: TableMapping) -> Iterator[_Line]:
    last = reader.line_num
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Line(last + 1, "", BadRow([str(error)]))
            last = reader.line_num
            continue
        number, last = last + 1, reader.line_num
        column = mapping.columns.get("product_id")
        product_id = _cell(cells, column) if column else ""
        try:
            yield _Line(number, product_id, _row(cells, mapping))
        except BadRow as bad:
            yield _Line(number, product_id, bad)


def _together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One product of what its variants' lines say; what isn't a variant's comes from the first."""
    names = {"sku": "sku", "price": "price", "currency": "currency", "list_price": "list_price", "ean": "ean",
             "untracked": "untracked", "options": "options", "variant_name": "name"}  # fmt: skip
    variants = [{name: row[key] for key, name in names.items() if key in row} for row in rows]
    return {**{key: value for key, value in rows[0].items() if key not in names}, "variants": variants}


def _row(cells: Mapping[str | None, Any], mapping: TableMapping) -> dict[str, Any]:
    faults: list[str] = []
    if None in cells:
        faults.append("has more cells than there are columns")
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


def _cell(cells: Mapping[str | None, Any], column: str) -> str:
    return (cells.get(column) or "").strip()


def _value(cell: str, kind: str, name: str, mapping: TableMapping, faults: list[str]) -> str | float | bool:
    if kind == "boolean":
        return _boolean(cell, name, faults)
    if kind == "number":
        try:
            return float(_number(cell, mapping))
        except ValueError:
            faults.append(f"{name}: {cell[:40]!r} is not a number")
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
