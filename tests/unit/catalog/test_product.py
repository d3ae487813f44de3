from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_svc.domain.edits import Edit, parse
from catalog_svc.domain.product import (
    FIELDS,
    Details,
    MediaLink,
    Product,
    ProductDeleted,
    Tombstone,
    Variant,
    create,
    delete,
    differences,
    identity,
    revise,
)
from catalog_svc.domain.rules import MAX_BYTES, ean_check_digit, id_violations, size_violations, violations
from chassis.money import Money
from tests.unit.catalog import strategies as some

GOOD = Details(name="Mug", variants=(Variant("M-1", Money("GBP", 2_550_000_000), eans=("4008705048507",)),))
PICTURE = MediaLink("https://shop.example/mug.jpg", "A mug")
NOON = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)


def mug(**variant: object) -> Details:
    return replace(GOOD, variants=(replace(GOOD.variants[0], **variant),))  # type: ignore[arg-type]


@settings(max_examples=40)
@given(some.details())
def test_good_products_have_no_violations(details: Details) -> None:
    assert violations(details) == []
    assert size_violations(details) == []


BAD: list[tuple[Details, str]] = [
    (replace(GOOD, name=""), "name"),
    (replace(GOOD, name=" \t"), "name"),
    (replace(GOOD, name="x" * 501), "name"),
    (replace(GOOD, description="x" * 20_001), "description"),
    (replace(GOOD, brand="x" * 201), "brand"),
    (replace(GOOD, category_id="x" * 129), "category_id"),
    (replace(GOOD, product_type_id="x" * 129), "product_type_id"),
    (replace(GOOD, tags=tuple(map(str, range(51)))), "tags"),
    (replace(GOOD, tags=("new", "")), "tags[1]"),
    (replace(GOOD, tags=("new", "new")), "tags[1]"),
    (replace(GOOD, media=(PICTURE,) * 51), "media"),
    (replace(GOOD, media=(MediaLink(""),)), "media[0].uri"),
    (replace(GOOD, media=(MediaLink("ftp://shop.example/x"),)), "media[0].uri"),
    (replace(GOOD, media=(MediaLink("https://shop.example/a b"),)), "media[0].uri"),
    (replace(GOOD, media=(MediaLink("https://[shop"),)), "media[0].uri"),
    (replace(GOOD, media=(PICTURE, replace(PICTURE, alt_text="x" * 501))), "media[1].alt_text"),
    (replace(GOOD, attributes={str(n): True for n in range(501)}), "attributes"),
    (replace(GOOD, attributes={"": "x"}), 'attributes[""]'),
    (replace(GOOD, attributes={"size": "x" * 7_501}), 'attributes["size"]'),
    (replace(GOOD, attributes={"size": float("nan")}), 'attributes["size"]'),
    (replace(GOOD, attributes={"size": float("-inf")}), 'attributes["size"]'),
    (replace(GOOD, name=" Mug"), "name"),
    (replace(GOOD, brand="Acme "), "brand"),
    (replace(GOOD, tags=("new", "new\u00a0")), "tags[1]"),
    (replace(GOOD, attributes={" size": "x"}), 'attributes[" size"]'),
    (mug(sku=" M"), "variants[0].sku"),
    (mug(options={"colour ": "x"}), 'variants[0].options["colour "]'),
    (replace(GOOD, name="a\0b"), "name"),
    (replace(GOOD, description="a\0b"), "description"),
    (replace(GOOD, brand="a\tb"), "brand"),
    (replace(GOOD, tags=("a\nb",)), "tags[0]"),
    (mug(options={"a\0": "x"}), 'variants[0].options["a\0"]'),
    (replace(GOOD, attributes={"a\0": "x"}), 'attributes["a\0"]'),
    (replace(GOOD, attributes={"size": "a\0"}), 'attributes["size"]'),
    (mug(sku="A\nB"), "variants[0].sku"),
    (mug(name="a\0b"), "variants[0].name"),
    (replace(GOOD, variants=()), "variants"),
    (replace(GOOD, variants=tuple(Variant(f"s{n}", Money("GBP", 0)) for n in range(201))), "variants"),
    (replace(GOOD, variants=GOOD.variants * 2), "variants[1].sku"),
    (mug(sku=""), "variants[0].sku"),
    (mug(sku="x" * 129), "variants[0].sku"),
    (mug(price=Money("GBP", -1)), "variants[0].price"),
    (mug(list_price=Money("USD", 3_000_000_000)), "variants[0].list_price"),
    (mug(list_price=Money("GBP", 2_549_999_999)), "variants[0].list_price"),
    (mug(options={"": "x"}), 'variants[0].options[""]'),
    (mug(options={"size": " "}), 'variants[0].options["size"]'),
    (mug(options={str(n): "x" for n in range(11)}), "variants[0].options"),
    (mug(media=(PICTURE,) * 21), "variants[0].media"),
    (mug(name="x" * 501), "variants[0].name"),
    (mug(eans=("4008705048507",) * 201), "variants[0].eans"),
    (mug(eans=("4008705048507", "40087050485")), "variants[0].eans[1]"),
    (mug(eans=("4008705048506",)), "variants[0].eans[0]"),
    (mug(eans=("４００８７０５０４８５０７",)), "variants[0].eans[0]"),
]


@pytest.mark.parametrize(("details", "field"), BAD, ids=[field for _, field in BAD])
def test_a_fault_is_reported_with_its_path(details: Details, field: str) -> None:
    assert [v.field for v in violations(details)] == [field]


@settings(max_examples=40)
@given(
    st.sets(st.sampled_from(["name", "category", "attribute", "sku", "price", "ean"])),
    some.details(),
)
def test_every_fault_is_reported_not_only_the_first(faults: set[str], details: Details) -> None:
    first = details.variants[0]
    expected = set()
    if "name" in faults:
        details, expected = replace(details, name=""), expected | {"name"}
    if "category" in faults:
        details, expected = replace(details, category_id="x" * 129), expected | {"category_id"}
    if "attribute" in faults:
        details = replace(details, attributes={"broken": float("inf")})
        expected |= {'attributes["broken"]'}
    if "sku" in faults:
        first, expected = replace(first, sku=""), expected | {"variants[0].sku"}
    if "price" in faults:
        first, expected = replace(first, price=Money("GBP", -5), list_price=None), expected | {"variants[0].price"}
    if "ean" in faults:
        first, expected = replace(first, eans=("12",)), expected | {"variants[0].eans[0]"}
    details = replace(details, variants=(first, *details.variants[1:]))
    found = violations(details)
    assert {v.field for v in found} == expected
    assert len(found) == len(expected)


@settings(max_examples=40)
@given(st.sets(st.sampled_from(FIELDS)))
def test_only_the_fields_asked_about_are_judged(fields: set[str]) -> None:
    broken = Details(
        name="",
        description="x" * 20_001,
        brand="x" * 201,
        category_id="x" * 129,
        product_type_id="x" * 129,
        tags=("",),
        media=(MediaLink(""),),
        attributes={"a": float("nan")},
        tax_class="x" * 65,
    )
    assert {v.field.partition("[")[0] for v in violations(broken, fields)} == fields - {"status"}


def test_options_tell_variants_apart() -> None:
    blue, red = (Variant(colour, Money("GBP", 1), options={"colour": colour}) for colour in ("blue", "red"))
    assert violations(replace(GOOD, variants=(blue, red))) == []
    again = replace(GOOD, variants=(blue, red, replace(blue, sku="other")))
    assert [v.field for v in violations(again)] == ["variants[2].options"]


@given(st.text(min_size=1) | st.text("a.`", min_size=1))
def test_the_path_of_a_difference_can_be_edited(key: str) -> None:
    before = replace(GOOD, attributes={}, variants=(Variant(key, Money("GBP", 1)),))
    after = replace(before, attributes={key: True}, variants=(Variant(key, Money("GBP", 2)),))
    edits = [parse(path) for path in differences(before, after)]
    assert edits == [Edit("attributes", key), Edit("variants", key, "price")]


def test_differences_are_the_paths_of_what_changed() -> None:
    after = replace(
        GOOD,
        name="Cup",
        attributes={"a.b": 1.0, "c": True},
        variants=(replace(GOOD.variants[0], price=Money("GBP", 3_000_000_000)), Variant("N.1", Money("GBP", 1))),
    )
    assert differences(GOOD, after) == (
        "name", "attributes.`a.b`", "attributes.c", "variants.M-1.price", "variants.`N.1`",
    )  # fmt: skip
    assert differences(after, replace(after, attributes={"a.b": True, "c": True})) == ("attributes.`a.b`",)
    assert differences(after, replace(after, variants=after.variants[::-1])) == ("variants",)
    many = differences(GOOD, replace(GOOD, attributes={str(n): True for n in range(99)}))
    assert (len(many), many[-1]) == (51, "…")


@settings(max_examples=40)
@given(some.details(), some.details())
def test_there_are_differences_exactly_between_products_that_differ(one: Details, other: Details) -> None:
    assert differences(one, one) == ()
    assert bool(differences(one, other)) == (repr(one) != repr(other))


def test_texts_are_limited_as_a_whole() -> None:
    large = replace(GOOD, attributes={f"fact {n}": "ä" * 4_000 for n in range(33)})
    assert violations(large) == []
    assert [v.field for v in size_violations(large)] == ["description"]
    assert f"{MAX_BYTES:,}" in size_violations(large)[0].description


def test_ids_have_one_to_128_characters() -> None:
    assert id_violations("x" * 128, "product_id") == []
    assert [v.field for v in id_violations("", "product_id") + id_violations("x" * 129, "product_id")] == [
        "product_id",
        "product_id",
    ]


@pytest.mark.parametrize("ean", ["4008705048507", "96385074", "614141000036", "10614141000415"])
def test_check_digits_of_real_codes(ean: str) -> None:
    assert ean_check_digit(ean[:-1]) == ean[-1]


def test_versions_go_on_over_a_deletion() -> None:
    created = create(None, "p", GOOD, etag="1", now=NOON)
    revised = revise(created.product, replace(GOOD, name="Cup"), etag="2", now=NOON)
    deleted = delete(revised.product, now=NOON)
    again = create(Tombstone("p", deleted.version), "p", GOOD, etag="4", now=NOON)
    assert [identity(event) for event in (created, revised, deleted, again)] == [("p", n) for n in (1, 2, 3, 4)]
    assert deleted == ProductDeleted("p", 3, NOON.replace(microsecond=123_000))


def test_times_are_kept_to_the_millisecond() -> None:
    product: Product = create(None, "p", GOOD, etag="1", now=NOON).product
    assert product.create_time.microsecond == 123_000
