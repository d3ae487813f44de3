"""Products as documents of the engine: nothing is lost, and keys sort as amounts do."""

import json

from hypothesis import given
from hypothesis import strategies as st

from search_svc.adapters.documents import (
    product_from_document,
    product_to_document,
    sku_from_document,
    sku_to_document,
)
from search_svc.adapters.mappings import MAPPINGS, PARTS, PRODUCTS
from search_svc.adapters.terms import number_key, number_of, number_step, price_key, shown_value
from search_svc.domain.product import Product, SkuRecord
from tests.unit.search import strategies as some


@given(some.products)
def test_a_product_comes_back_from_its_document_as_it_was(product: Product) -> None:
    document = json.loads(json.dumps(product_to_document(product)))
    again = product_from_document(document)
    assert again == product
    assert {k: type(v) for k, v in again.attributes.items()} == {k: type(v) for k, v in product.attributes.items()}
    assert document.keys() <= MAPPINGS[PRODUCTS].keys()


@given(some.skus)
def test_a_sku_comes_back_from_its_document_as_it_was(record: SkuRecord) -> None:
    document = json.loads(json.dumps(sku_to_document(record)))
    assert sku_from_document(record.sku, document) == record
    assert document.keys() <= MAPPINGS[PARTS].keys()


@given(some.amounts, some.amounts)
def test_price_keys_sort_as_amounts(one: int, other: int) -> None:
    assert (price_key("GBP", one) < price_key("GBP", other)) == (one < other)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers)
def test_number_keys_sort_as_numbers_and_can_be_read_back(one: float, other: float) -> None:
    assert (number_key(one) < number_key(other)) == (one < other)
    assert number_of(number_key(one)) == one


@given(numbers | st.integers(-99, 99).map(float) | st.decimals(-99, 99, places=1).map(float))
def test_a_step_is_the_number_below_of_two_digits(number: float) -> None:
    step = number_of(number_step(number))
    assert step <= number
    assert float(f"{step:.1e}") == step or abs(number) > 1.7e308
    assert abs(number - step) <= abs(step) / 10


def test_values_are_shown_as_a_shopper_reads_them() -> None:
    values = (5.0, 1.8, -0.5, True, False, "Black")
    assert [shown_value(v) for v in values] == ["5", "1.8", "-0.5", "true", "false", "Black"]
