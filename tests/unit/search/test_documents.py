"""Products as documents of the engine: nothing is lost, and keys sort as amounts do."""

import json

from hypothesis import given
from hypothesis import strategies as st

from chassis.money import Money
from search_svc.adapters.documents import (
    price_key,
    product_from_document,
    product_to_document,
    shown_value,
    sku_from_document,
    sku_to_document,
)
from search_svc.adapters.schema import _MAPPINGS, PARTS, PRODUCTS
from search_svc.domain.product import Availability, Category, Product, SkuAvailability, SkuRecord, Variant

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
availabilities = st.builds(SkuAvailability, st.sampled_from(Availability), st.integers(1, 2**62))
values = text | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
amounts = st.integers(0, 9 * 10**18)
variants = st.builds(
    Variant,
    sku=text.filter(bool),
    price=st.builds(Money, st.sampled_from(["GBP", "USD"]), amounts),
    name=text,
    eans=st.lists(st.from_regex("[0-9]{8}", fullmatch=True), max_size=2).map(tuple),
    untracked=st.booleans(),
    options=st.dictionaries(text, text, max_size=2),
)
live = st.builds(
    Product,
    product_id=text,
    version=st.integers(1, 2**62),
    deleted=st.just(False),
    name=text,
    description=text,
    brand=text,
    active=st.booleans(),
    category=st.builds(Category, text, st.lists(text, max_size=3).map(tuple), st.integers(0, 2**62)),
    tags=st.lists(text, max_size=2).map(tuple),
    attributes=st.dictionaries(text, values, max_size=4),
    variants=st.lists(variants, min_size=1, max_size=3).map(tuple),
    availability=st.dictionaries(text, availabilities, max_size=3),
)
products = live | st.builds(Product, text, st.integers(1, 2**62), deleted=st.just(True))


@given(products)
def test_a_product_comes_back_from_its_document_as_it_was(product: Product) -> None:
    document = json.loads(json.dumps(product_to_document(product)))
    again = product_from_document(document)
    assert again == product
    assert {k: type(v) for k, v in again.attributes.items()} == {k: type(v) for k, v in product.attributes.items()}
    assert document.keys() <= _MAPPINGS[PRODUCTS].keys()


@given(st.none() | availabilities, st.frozensets(text))
def test_a_sku_comes_back_from_its_document_as_it_was(known: SkuAvailability | None, ids: frozenset[str]) -> None:
    document = json.loads(json.dumps(sku_to_document(SkuRecord("A", known, ids))))
    assert sku_from_document("A", document) == SkuRecord("A", known, ids)
    assert document.keys() <= _MAPPINGS[PARTS].keys()


@given(amounts, amounts)
def test_price_keys_sort_as_amounts(one: int, other: int) -> None:
    assert (price_key("GBP", one) < price_key("GBP", other)) == (one < other)


def test_values_are_shown_as_a_shopper_reads_them() -> None:
    values = (5.0, 1.8, -0.5, True, False, "Black")
    assert [shown_value(v) for v in values] == ["5", "1.8", "-0.5", "true", "false", "Black"]
