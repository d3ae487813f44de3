"""Tables with a damaged line: whatever is wrong with it, no part of a product replaces the whole."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given
from hypothesis import strategies as st

from ops.importing import ImportReport, read_products
from ops.tables import TableMapping

MAPPING = TableMapping(
    columns={name: name for name in ("sku", "product_id", "name", "price")}, constants={"currency": "EUR"}
)
HEAD = b"sku,product_id,name,price"
# What stands in the cell; the quoted ones take as many lines as they have.
NAMES = (b"Mug", b'"Mug, large"', b'"Mug\nin two lines"', b'"Mug\r\n\r\nwith ""handle"""', "Größe".encode())


@dataclass(frozen=True)
class Line:
    """A line's bytes without their end, how many blank lines are before it, and its product, "" for a single one."""

    text: bytes
    product_id: str
    blank: int = 0


def cut(line: bytes) -> bytes:
    return line[: line.rindex(b",")]


# Each leaves no doubt that the line is bad; its product can be told after `tells` only.
HIDES: dict[str, Callable[[bytes], bytes]] = {
    "a quote ends within a cell": lambda line: b'"' + line.replace(b",", b'"x,', 1),
    "a quote has no end": lambda line: b'"' + line,
    "a quote in the product's cell has no end": lambda line: line.replace(b",", b',"', 1),
    "it is cut off": cut,
    "it is cut off in front of its product": lambda line: line[: line.index(b",")],
    "it has a comma too many": lambda line: b"," + line,
    "it is no text": lambda line: b"\xff\xfe\x00",
    "its product is no text": lambda line: line.replace(b",", b",\xff", 1),
    "it is spaces": lambda line: b"   ",
}
TELLS: dict[str, Callable[[bytes], bytes]] = {
    "its price is none": lambda line: cut(line) + b",dear",
    "its price is missing": lambda line: cut(line) + b",",
    "its SKU is no text": lambda line: b"\xe4" + line,
    "its name is no text": lambda line: re.sub(rb'("?),1\.50$', b"\xe4" + rb"\1,1.50", line),
}
SWALLOWS = ("a quote has no end", "a quote in the product's cell has no end")


@st.composite
def tables(draw: st.DrawFn) -> list[Line]:
    lines = []
    for number in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(NAMES))
        product_id = draw(st.sampled_from(["", f"P{number}"]))
        for variant in range(draw(st.integers(1, 4)) if product_id else 1):
            text = b"%d-%d,%s,%s,1.50" % (number, variant, product_id.encode(), name)
            lines.append(Line(text, product_id, draw(st.integers(0, 2))))
    return lines


def numbers(lines: list[Line]) -> list[int]:
    """The number in the file of each line's first."""
    found, number = [], 2
    for line in lines:
        found.append(number + line.blank)
        number += line.blank + line.text.count(b"\n") + 1
    return found


def read(lines: list[Line], end: bytes = b"\n") -> tuple[dict[int, bytes], dict[int, str]]:
    """The products that go in and the rejections, by line."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "products.csv")
        path.write_bytes(HEAD + end + b"".join(end * line.blank + line.text + end for line in lines))
        report = ImportReport()
        good = {r.row: r.product.SerializeToString(deterministic=True) for r in read_products(path, report, MAPPING)}
        assert len(report.rejections) == report.rows
        return good, {rejection.row: rejection.reason for rejection in report.rejections}


@given(lines=tables(), end=st.sampled_from([b"\n", b"\r\n"]))
def test_products_stand_under_the_numbers_of_their_first_lines(lines: list[Line], end: bytes) -> None:
    firsts = {line.product_id or str(n): n for n, line in reversed([*zip(numbers(lines), lines, strict=True)])}
    good, bad = read(lines, end)
    assert (sorted(good), bad) == (sorted(firsts.values()), {})


@given(lines=tables(), place=st.integers(0, 23), damage=st.sampled_from([*HIDES, *TELLS]))
@example(
    lines=[Line(b"A%d,P,Mug,1.50" % n, "P") for n in (1, 2, 3)], place=1, damage="a quote ends within a cell"
)  # fmt: skip
def test_a_damaged_line_rejects_its_product_whole_and_others_go_in_unchanged(
    lines: list[Line], place: int, damage: str
) -> None:
    place %= len(lines)
    before, _ = read(lines)
    at = numbers(lines)
    keys = [line.product_id or str(n) for n, line in zip(at, lines, strict=True)]
    damaged = [*lines]
    damaged[place] = replace(lines[place], text=({**HIDES, **TELLS}[damage])(lines[place].text))
    good, bad = read(damaged)

    # What goes in goes in whole and as it was, and of the damaged product nothing does.
    moved = damaged[place].text.count(b"\n") - lines[place].text.count(b"\n")
    unchanged = {n + moved * (n > at[place]): product for n, product in before.items()}
    assert good.items() <= unchanged.items()
    first = at[keys.index(keys[place])]
    assert first not in good

    # It is told by the number of its first line, and so is the line where its product isn't known.
    told = at[place] if damage in HIDES else first
    assert told in bad
    # Only those may go with it that touch a line whose product isn't known, or are within its quote.
    spared = {n for n, key in zip(at, keys, strict=True) if key not in keys[max(place - 1, 0) : place + 2]}
    if damage in TELLS:
        spared = {n for n, key in zip(at, keys, strict=True) if key != keys[place]}
    if damage in SWALLOWS:
        spared = {n for n in spared if n < at[place]}
    for n in spared & before.keys():
        assert n + moved * (n > at[place]) in good
