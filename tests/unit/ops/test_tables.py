"""CSV files by a mapping, and rows of JSON beyond the plain ones."""

import gzip
import json
import secrets
from pathlib import Path

import pytest
from polymart.catalog.v1.catalog_service_pb2 import ImportProductsRequest
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_DRAFT

from ops.importing import ImportReport, read_products
from ops.rows import BadRow, request_of
from ops.tables import read_mapping

MAPPING = """
delimiter = ";"
encoding = "cp1252"
decimal = ","
[columns]
sku = "Article"
product_id = "Parent"
name = "Title"
price = "Price"
list_price = "Was"
ean = "EAN"
category_path = "Category"
status = "State"
untracked = "Service"
[constants]
currency = "EUR"
[separators]
category_path = ">"
ean = "|"
[attributes]
material = "Material"
height = { column = "Height", kind = "number" }
safe = { column = "Safe", kind = "boolean" }
[options]
colour = "Colour"
"""
HEAD = "Article;Parent;Title;Price;Was;EAN;Category;State;Service;Material;Height;Safe;Colour;Unmapped"


def mapping_file(folder: Path, text: str = MAPPING) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def read(folder: Path, *lines: str, encoding: str = "cp1252") -> tuple[list[ImportProductsRequest], ImportReport]:
    path = folder / "products.csv.gz"
    path.write_bytes(gzip.compress("\r\n".join([HEAD, *lines]).encode(encoding)))
    report = ImportReport()
    return list(read_products(path, report, read_mapping(mapping_file(folder)))), report


def test_a_line_becomes_a_product_by_its_mapping(tmp_path: Path) -> None:
    line = "M-1;;Becher, groß;9,95;12,00;96385074|4008705048507;Küche > Becher;draft;no;Steingut;95,5;yes;blau;x"
    (request,), report = read(tmp_path, line)
    product = request.product
    (variant,) = product.variants
    assert (request.row, product.product_id, product.name) == (2, "M-1", "Becher, groß")
    assert list(request.category_path) == ["Küche", "Becher"]
    assert (product.status, variant.price.units, variant.price.nanos) == (PRODUCT_STATUS_DRAFT, 9, 950_000_000)
    assert (variant.list_price.units, list(variant.eans)) == (12, ["96385074", "4008705048507"])
    assert (product.attributes["height"].number, product.attributes["safe"].flag) == (95.5, True)
    assert (product.attributes["material"].text, dict(variant.options)) == ("Steingut", {"colour": "blau"})
    assert report.rows == 0


def test_lines_of_one_product_that_follow_one_another_are_its_variants(tmp_path: Path) -> None:
    requests, report = read(
        tmp_path,
        "M-1;M;Becher;9,95;;;;;;Steingut;;;blau;", "M-2;M;;9,95;;;;;;;;;rot;", "N-1;;Kanne;19;;;;;;;;;;",
    )  # fmt: skip
    assert [(r.row, r.product.product_id, [v.sku for v in r.product.variants]) for r in requests] == [
        (2, "M", ["M-1", "M-2"]), (4, "N-1", ["N-1"]),
    ]  # fmt: skip
    assert [dict(v.options) for v in requests[0].product.variants] == [{"colour": "blau"}, {"colour": "rot"}]
    assert report.rejections == []


def test_no_part_of_a_product_goes_in_whose_lines_stand_apart(tmp_path: Path) -> None:
    requests, report = read(
        tmp_path, "M-1;M;Becher;1;;;;;;;;;;", "N-1;N;Kanne;19;;;;;;;;;;", "M-2;M;Becher;1;;;;;;;;;;"
    )  # fmt: skip
    assert [r.product.product_id for r in requests] == ["N"]
    assert [(r.row, r.reason) for r in report.rejections] == [
        (line, "product M has lines that don't follow one another") for line in (2, 4)
    ]


def test_what_lines_say_of_their_product_is_put_together_and_refused_where_it_differs(tmp_path: Path) -> None:
    lines = ["M-1;M;Becher;1;;;;;;Steingut;;;;", "M-2;M;Becher;1;;;;;;;9;;;", "M-3;M;;1;;;;draft;;Steingut;;;;"]
    (request,), _ = read(tmp_path, *lines)
    product = request.product
    assert (product.attributes["material"].text, product.attributes["height"].number) == ("Steingut", 9.0)
    assert (product.status, len(product.variants)) == (PRODUCT_STATUS_DRAFT, 3)
    requests, report = read(tmp_path, *lines, "M-4;M;Tasse;1;;;;;;Glas;9;;;")
    assert requests == []
    assert [(r.row, r.reason) for r in report.rejections] == [
        (2, 'line 5: name: differs from line 2; line 5: attributes["material"]: differs from line 2')
    ]


def test_a_product_with_more_lines_than_any_has_is_not_held_together(tmp_path: Path) -> None:
    lines = [f"M-{n};M;Becher;9,95;;;;;;;;;;" for n in range(1_500)]
    requests, report = read(tmp_path, *lines, "N-1;N;Kanne;19;;;;;;;;;;")
    assert [(r.row, r.product.product_id) for r in requests] == [(1_502, "N")]
    assert [(r.row, r.reason) for r in report.rejections] == [(2, "product M has 1,500 lines, over 1,000")]


def test_a_bad_line_rejects_all_of_its_product_so_that_no_part_replaces_the_whole(tmp_path: Path) -> None:
    requests, report = read(
        tmp_path, "M-1;M;Becher;1;;;;;;;;;;", "M-2;M;;1;;;;;maybe;;;;;", "M-3;M;;1;;;;;;;;;;", "N-1;;Kanne;1;;;;;;;;;;",
    )  # fmt: skip
    assert [r.product.product_id for r in requests] == ["N-1"]
    (rejection,) = report.rejections
    assert (rejection.row, "line 3: untracked" in rejection.reason) == (2, True)


def test_a_point_that_may_group_thousands_is_refused_where_decimals_have_a_comma(tmp_path: Path) -> None:
    requests, report = read(tmp_path, "a;;Becher;1.234;;;;;;;;;;", "b;;Becher;1,5;;;;;;;;;;")
    assert [(r.product.product_id, r.product.variants[0].price.nanos) for r in requests] == [("b", 500_000_000)]
    assert "has a point" in report.rejections[0].reason


def test_bad_lines_are_told_by_their_number_and_the_rest_goes_in(tmp_path: Path) -> None:
    requests, report = read(
        tmp_path,
        "a;;Tasse;dear;;;;;;;;;;", "b;;Tasse;1;;;;;maybe;;tall;;;", '"c";;"two\nlines";1;;;;;;;;;;',
        "d;;Tasse;1;;;;;;;;;;;;",
        ";;;;;;;;;;;;;", "e;;Tasse;1;;;;;;;;;;",
    )  # fmt: skip
    assert [r.row for r in requests] == [4, 8]
    assert {r.row: r.reason for r in report.rejections} == {
        2: "price: 'dear' is not a decimal number",
        3: "untracked: 'maybe' is neither true nor false; height (Height): 'tall' is not a number",
        6: "has 16 cells, and there are 14 columns",
        7: "name: is missing; sku: is missing; price: is missing",
    }


def test_bytes_that_are_not_of_the_encoding_reject_their_line_alone(tmp_path: Path) -> None:
    table = read_mapping(mapping_file(tmp_path, MAPPING.replace('encoding = "cp1252"\n', "")))
    path = tmp_path / "products.csv"
    lines = [HEAD.encode(), b"a;;Gr\xf6\xdfe;1;;;;;;;;;;", "b;;Größe;1;;;;;;;;;;".encode()]
    # As spreadsheets write it, with a mark in front.
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    report = ImportReport()
    (good,) = read_products(path, report, table)
    assert good.product.name == "Größe"
    assert [(r.row, r.reason) for r in report.rejections] == [(2, "name: is not valid UTF-8")]


def test_text_of_an_encoding_without_ascii_is_read_up_to_what_is_not_of_it(tmp_path: Path) -> None:
    table = read_mapping(mapping_file(tmp_path, MAPPING.replace("cp1252", "utf-16")))
    path = tmp_path / "products.csv"
    lines = [HEAD, "a;A;Größe;1;;;;;;;;;;", *(f"{n};B;Größe;1;;;;;;;;;;" for n in range(2_000))]
    whole = "\n".join(lines).encode("utf-16")
    path.write_bytes(whole)
    report = ImportReport()
    assert [r.product.product_id for r in read_products(path, report, table)] == ["A"]
    assert [r.row for r in report.rejections] == [3]
    assert "over 1,000" in report.rejections[0].reason

    apart = [line.replace(";B;", ";;") for line in lines]
    odd = "\n".join(apart[:1_500]).encode("utf-16") + b"\x00\xd8" + "\n".join(apart[1_500:]).encode("utf-16-le")
    path.write_bytes(odd)
    report = ImportReport()
    good = [r.row for r in read_products(path, report, table)]
    assert good == list(range(2, len(good) + 2))
    assert len(good) > 1_000
    (rejection,) = report.rejections
    assert rejection.row == len(good) + 2
    assert "the file can't be read from here on: 'utf-16-le' codec can't decode" in rejection.reason


def test_a_damaged_archive_rejects_the_product_that_it_ends_in(tmp_path: Path) -> None:
    lines = [HEAD, *(f"{n};{n // 7};Tasse;1;;;;;;;;;;{secrets.token_hex(20)}" for n in range(3_000))]
    path = tmp_path / "products.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-9_000])
    report = ImportReport()
    good = list(read_products(path, report, read_mapping(mapping_file(tmp_path))))
    assert {len(r.product.variants) for r in good} == {7}
    assert [r.row for r in good] == [2 + 7 * n for n in range(len(good))]
    *_, end = report.rejections
    assert 2 + 7 * len(good) <= end.row <= 2 + 7 * (len(good) + 1)
    assert "the file can't be read from here on" in end.reason


def test_a_line_without_end_is_one_bad_line(tmp_path: Path) -> None:
    requests, report = read(tmp_path, "x" * (16 * 2**20 + 7), "a;;Tasse;1;;;;;;;;;;")
    assert [r.row for r in requests] == [3]
    assert [(r.row, r.reason) for r in report.rejections] == [(2, "the line has over 16,777,216 characters")]


@pytest.mark.parametrize("cell", ["1_000", "nan", "inf", "-Infinity", "\u00b2", "0x10", "1,2,3", "1e"])
def test_what_only_python_takes_for_a_number_is_none(tmp_path: Path, cell: str) -> None:
    requests, report = read(tmp_path, f"a;;Tasse;1;;;;;;;{cell};;;", "b;;Tasse;1;;;;;;;-1,5E2;;;")
    assert [r.product.attributes["height"].number for r in requests] == [-150.0]
    assert [r.reason for r in report.rejections] == [f"height (Height): {cell!r} is not a number"]


def test_a_mapped_heading_that_stands_twice_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text(f"{HEAD};Title;EAN;Unmapped\n")
    with pytest.raises(ValueError, match="has more than one column EAN, Title"):
        list(read_products(path, ImportReport(), read_mapping(mapping_file(tmp_path))))
    path.write_text(f'"Article"x;{HEAD}\n')
    with pytest.raises(ValueError, match="the file's headings can't be read"):
        list(read_products(path, ImportReport(), read_mapping(mapping_file(tmp_path))))


def test_a_quote_that_never_ends_rejects_what_it_swallows(tmp_path: Path) -> None:
    requests, report = read(tmp_path, "a;;Tasse;1;;;;;;;;;;", '"b;;Tasse;1;;;;;;;;;;', "c;;Tasse;1;;;;;;;;;;")
    assert [r.row for r in requests] == [2]
    assert [r.row for r in report.rejections] == [3]
    assert "unexpected end of data" in report.rejections[0].reason


def test_a_mapping_that_is_none_names_every_fault(tmp_path: Path) -> None:
    bad = """
        delimiter = ";;"
        [columns]
        sku = 7
        colour = "Colour"
        [constants]
        price = 1
        [separators]
        name = "x"
        [attributes]
        height = { column = "Height", kind = "length" }
    """
    with pytest.raises(ValueError, match=r"mapping\.toml") as refused:
        read_mapping(mapping_file(tmp_path, bad))
    for fault in (
        "[columns] sku must be text", "[columns] colour is not a known field", "[constants] price must be text",
        "[separators] name is not a known field", "[attributes] height must be", "delimiter must be one character",
    ):  # fmt: skip
        assert fault in str(refused.value)
    for text, fault in (("not toml", "is not a TOML file"), ("quote = 'x'", "quote is not a known setting"),
                        ("columns = 'x'", "[columns] must be a table"),
                        ("encoding = 'klingon'", "encoding 'klingon' is not known"),
                        ("encoding = 'base64'", "encoding 'base64' is not known"),
                        ('encoding = "a\\u0000b"', "encoding 'a\\x00b' is not known")):  # fmt: skip
        with pytest.raises(ValueError, match=r"mapping\.toml") as refused:
            read_mapping(mapping_file(tmp_path, text))
        assert fault in str(refused.value)


def test_a_file_without_the_mapped_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    path.write_text("Article;Title\na;b\n")
    with pytest.raises(ValueError, match="has no column Category, Colour, EAN"):
        list(read_products(path, ImportReport(), read_mapping(mapping_file(tmp_path))))


def test_a_row_of_json_may_have_variants_pictures_and_all_the_rest() -> None:
    row = {
        "product_id": "mug", "name": "Mug", "currency": "EUR", "category_id": "mugs", "product_type_id": "mug",
        "status": "draft", "tags": ["new"], "image_url": "https://shop.example/1",
        "media": ["https://shop.example/2", {"uri": "https://shop.example/3", "alt_text": "A mug"}],
        "variants": [
            {"sku": "M-1", "price": "9.95", "list_price": "12", "options": {"colour": "blue"}, "name": "blue",
             "ean": 96385074, "media": ["https://shop.example/4"]},
            {"sku": "M-2", "price": 10, "currency": "USD", "untracked": True},
        ],
    }  # fmt: skip
    request = request_of(3, json.loads(json.dumps(row)))
    product = request.product
    assert (request.row, product.product_id, product.category_id, product.product_type_id) == (3, "mug", "mugs", "mug")
    assert [(link.uri[-1], link.alt_text) for link in product.media] == [("1", ""), ("2", ""), ("3", "A mug")]
    one, other = product.variants
    assert (one.sku, one.name, dict(one.options), list(one.eans)) == ("M-1", "blue", {"colour": "blue"}, ["96385074"])
    assert (one.price.currency_code, one.media[0].uri[-1], one.list_price.units) == ("EUR", "4", 12)
    assert (other.price.currency_code, other.price.units, other.untracked) == ("USD", 10, True)
    with pytest.raises(BadRow, match=r"variants\[0\]\.shape: is not a known field"):
        request_of(1, {"name": "Mug", "currency": "EUR", "variants": [{"sku": "a", "price": "1", "shape": "round"}]})
