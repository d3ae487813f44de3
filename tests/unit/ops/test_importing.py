"""Rows of a product file: what is read, and how a bad line is reported."""

import gzip
import json
from pathlib import Path

import pytest

from ops.importing import ImportReport, read_products
from ops.rows import BadRow, gtin, request_of

GOOD = {"sku": "1", "name": "Cable", "brand": "C2G", "category_path": [], "price": "13.95", "currency": "USD",
        "ean": ["0757120404200"], "released": "2008-08-12",
        "attributes": {"length": 2.0, "type": "HDMI", "long": False}}  # fmt: skip


def write(folder: Path, *lines: str) -> Path:
    path = folder / "products.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_row_becomes_a_product_with_typed_attributes(tmp_path: Path) -> None:
    report = ImportReport()
    (request,) = read_products(write(tmp_path, json.dumps(GOOD)), report)
    product = request.product
    assert request.row == 1
    assert (product.product_id, product.brand) == ("1", "C2G")
    assert product.variants[0].price.units == 13
    assert product.variants[0].price.nanos == 950_000_000
    assert product.attributes["length"].number == 2.0
    assert product.attributes["long"].WhichOneof("kind") == "flag"
    assert product.attributes["released"].text == "2008-08-12"
    assert report.rows == 0


def test_a_malformed_line_is_reported_by_its_number_and_the_rest_goes_in(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD), "{not json", json.dumps({**GOOD, "price": "dear"}), "[]", "",
             json.dumps({k: v for k, v in GOOD.items() if k != "name"}), json.dumps({**GOOD, "sku": "2"})]  # fmt: skip
    report = ImportReport()
    read = [request.row for request in read_products(write(tmp_path, *lines), report)]
    assert read == [1, 7]
    assert [rejection.row for rejection in report.rejections] == [2, 3, 4, 6]
    assert "name" in report.rejections[3].reason
    assert report.outcomes["REJECTED"] == 4


def test_an_attribute_of_another_kind_rejects_its_row(tmp_path: Path) -> None:
    report = ImportReport()
    assert not list(read_products(write(tmp_path, json.dumps({**GOOD, "attributes": {"a": [1]}})), report))
    assert "attribute" in report.rejections[0].reason


@pytest.mark.parametrize(
    ("kept", "meant"),
    [
        ("85896333746", "085896333746"), (85896333746, "085896333746"), ("0757120404200", "0757120404200"),
        ("96385074", "96385074"), ("123456789012345", "123456789012345"), ("no code", "no code"),
    ],
)  # fmt: skip
def test_a_code_that_was_kept_as_a_number_gets_its_leading_zeros_back(kept: str | int, meant: str) -> None:
    assert gtin(kept) == meant


def test_a_damaged_archive_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write(tmp_path, *(json.dumps({**GOOD, "sku": str(number)}) for number in range(5_000)))
    whole.write_bytes(whole.read_bytes()[:-200])
    report = ImportReport()
    read = [request.row for request in read_products(whole, report)]
    assert read == list(range(1, len(read) + 1))
    (rejection,) = report.rejections
    assert rejection.row == len(read) + 1
    assert "can't be read from here on" in rejection.reason
    whole.write_bytes(b"no archive")
    assert not list(read_products(whole, report))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 200_000, "is nested too deeply"),
        ('{"sku": NaN}', "is not JSON: NaN is no number"),
        ('{"sku": "1", "price": 1e999999999999999999999}', "has a number with too many digits"),
        ('{"sku": "1", "price": ' + "9" * 5_000 + "}", "has a number with too many digits"),
        (json.dumps({**GOOD, "attributes": {"a": int("9" * 401)}}), 'attributes["a"]: is too large a number'),
        (json.dumps(GOOD).replace('"2008-08-12"', "1e400"), 'attributes["released"]: is too large a number'),
        (json.dumps({**GOOD, "description": "x" * 15_500_000}), "the row has 15,500,137 bytes, over 15,000,000"),
        (json.dumps({**GOOD, "options": {"\ud800": "x"}}), 'options["?"]: is not valid UTF-8'),
        (json.dumps({**GOOD, "category_path": "Toys"}), "category_path: must be a list of texts, not text"),
        (json.dumps({**GOOD, "price": True}), "price: must be a decimal number, not true or false"),
        (json.dumps({**GOOD, "attributes": "none"}), "attributes: must be an object, not text"),
        (json.dumps({**GOOD, "price": "1e999999999999"}), "price: '1e999999999999' is not an amount of up to nine"),
        ('{"sku": "1", "sku": "2", "price": 1, "name": "a", "name": "b"}', "sku: is given 2 times; name: is given 2"),
        ('{"sku": "1", "attributes": {"a": 1, "a": 1, "a": 2}}', "a: is given 3 times"),
        (json.dumps({**GOOD, "mpn": "x", "attributes": {"mpn": "y"}}), "mpn: mpn is given twice, and not the same"),
        (json.dumps({**GOOD, "attributes": {"released": 2008}}), "released: released is given twice, and not the same"),
        (json.dumps({**GOOD, "mpn": "x", "mpn_or_short_name": "y"}), "mpn_or_short_name: mpn is given twice, and not"),
    ],
    ids=["deep", "nan", "exponent", "digits", "integer", "float", "long", "surrogate", "path", "flag", "null", "dear",
         "names", "attributes", "mpn", "released", "short name"],
)  # fmt: skip
def test_whatever_is_wrong_with_a_line_it_is_named_and_the_next_ones_go_in(
    tmp_path: Path, line: str, reason: str
) -> None:
    report = ImportReport()
    (request,) = read_products(write(tmp_path, line, json.dumps({**GOOD, "ean": "0757120404200"})), report)
    assert (request.row, list(request.product.variants[0].eans)) == (2, ["0757120404200"])
    assert [rejection.row for rejection in report.rejections] == [1]
    assert report.rejections[0].reason.startswith(reason)


def test_a_price_may_be_a_json_number_and_stays_exact(tmp_path: Path) -> None:
    report = ImportReport()
    (request,) = read_products(write(tmp_path, json.dumps({**GOOD, "price": 1.1})), report)
    assert request.product.variants[0].price.nanos == 100_000_000


def test_what_is_an_attribute_may_be_said_as_one_or_as_a_field_or_both_the_same(tmp_path: Path) -> None:
    forms = [{"mpn": "x"}, {"attributes": {"mpn": "x"}}, {"mpn": "x", "mpn_or_short_name": "x"},
             {"mpn": "x", "attributes": {"mpn": "x"}}, {"mpn": "", "mpn_or_short_name": "x"}]  # fmt: skip
    lines = [json.dumps({**GOOD, **form}) for form in forms]
    found = [r.product.attributes["mpn"].text for r in read_products(write(tmp_path, *lines), ImportReport())]
    assert found == ["x"] * len(forms)


def test_a_number_that_is_none_is_not_called_too_large() -> None:
    with pytest.raises(BadRow, match=r'^attributes\["a"\]: is not a number$'):
        request_of(1, {**GOOD, "attributes": {"a": float("nan")}})


def test_a_mark_in_front_of_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    report = ImportReport()
    read = [r.row for r in read_products(write(tmp_path, "\ufeff" + json.dumps(GOOD), json.dumps(GOOD)), report)]
    assert (read, report.rejections) == ([1, 2], [])
