"""CSV files by a mapping, and rows of JSON beyond the plain ones."""

import gzip
import json
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
        "M-3;M;Becher;1;;;;;;;;;;",
    )  # fmt: skip
    assert [(r.row, r.product.product_id, [v.sku for v in r.product.variants]) for r in requests] == [
        (2, "M", ["M-1", "M-2"]), (4, "N-1", ["N-1"]),
    ]  # fmt: skip
    assert [dict(v.options) for v in requests[0].product.variants] == [{"colour": "blau"}, {"colour": "rot"}]
    assert [(r.row, r.reason) for r in report.rejections] == [
        (5, "product M stands further up; its lines must follow one another")
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
        3: "line 3: untracked: 'maybe' is neither true nor false; height (Height): 'tall' is not a number",
        6: "line 6: has more cells than there are columns",
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
