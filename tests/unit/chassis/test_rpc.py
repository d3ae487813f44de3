"""What needs no server: validation, masks, pages, and errors on the wire."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from google.type.money_pb2 import Money
from hypothesis import given
from hypothesis import strategies as st
from polymart.catalog.v1.catalog_service_pb2 import UpdateProductRequest
from polymart.catalog.v1.product_pb2 import Product, Variant
from polymart.customer.v1.customer_pb2 import Customer
from polymart.inventory.v1.inventory_service_pb2 import RestockStockRequest, ReturnedLine
from polymart.notification.v1.notification_service_pb2 import MarkReadRequest
from polymart.order.v1.order_service_pb2 import ListOrdersRequest, PlaceOrderLine, PlaceOrderRequest

from chassis.errors import Aborted, Internal, InvalidArgument, NotFound, Unavailable, Violation
from chassis.rpc.errors import as_ours, to_status
from chassis.rpc.mask import masked_paths
from chassis.rpc.paging import PageToken, Position, asked_page, fingerprint
from chassis.rpc.validation import Validator

UUID = "0190b9b4-7e1c-7a53-8a3b-6f6f0c1d2e3f"


def violations(validator: Validator) -> dict[str, str]:
    found: tuple[Violation, ...] = ()
    try:
        validator.done()
    except InvalidArgument as error:
        found = error.violations
    by_field = {v.field: v.description for v in found}
    assert len(by_field) == len(found)
    return by_field


# Validation


def test_every_required_field_that_is_empty_is_a_violation() -> None:
    assert violations(Validator(PlaceOrderRequest())) == {
        "request_id": "is required",
        "lines": "is required",
        "payment_token": "is required",
    }


def test_a_uuid_is_the_same_in_either_case() -> None:
    request = RestockStockRequest(order_id="O", request_id=UUID.upper(), lines=[ReturnedLine(sku="A", quantity=1)])
    Validator(request).done()
    assert (request.request_id, request.order_id) == (UUID, "O")
    several = MarkReadRequest(notification_ids=[UUID.upper(), "NONE"])
    assert violations(Validator(several)) == {"notification_ids[1]": "must be a UUID"}
    assert several.notification_ids[0] == UUID


def test_lines_are_checked_one_by_one() -> None:
    lines = [PlaceOrderLine(sku="A", quantity=1), PlaceOrderLine(), PlaceOrderLine(sku="B")]
    request = PlaceOrderRequest(request_id="no uuid", lines=lines, payment_token="tok")
    assert violations(Validator(request)) == {
        "request_id": "must be a UUID",
        "lines[1].sku": "is required",
        "lines[1].quantity": "is required",
        "lines[2].quantity": "is required",
    }


@given(st.lists(st.tuples(st.sampled_from(["", "SKU"]), st.integers(0, 2)), max_size=20), st.booleans(), st.booleans())
def test_the_violations_are_exactly_the_empty_fields(
    lines: list[tuple[str, int]], with_id: bool, with_token: bool
) -> None:
    request = PlaceOrderRequest(
        request_id=UUID if with_id else "",
        payment_token="tok" if with_token else "",
        lines=[PlaceOrderLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )
    expected = {f"lines[{i}].sku" for i, (sku, _) in enumerate(lines) if not sku}
    expected |= {f"lines[{i}].quantity" for i, (_, quantity) in enumerate(lines) if not quantity}
    expected |= set() if lines else {"lines"}
    expected |= set() if with_id else {"request_id"}
    expected |= set() if with_token else {"payment_token"}
    assert violations(Validator(request)).keys() == expected


def test_an_update_need_not_fill_in_its_resource() -> None:
    request = UpdateProductRequest(product=Product(product_id="p"))
    assert {"product.name", "product.variants"} <= violations(Validator(request)).keys()
    assert violations(Validator(request, shallow=["product"])) == {}
    assert violations(Validator(UpdateProductRequest(), shallow=["product"])) == {"product": "is required"}


def test_the_price_within_a_variant_is_found() -> None:
    product = Product(product_id="p", name="n", variants=[Variant(sku="A", price=Money()), Variant(sku="B")])
    found = violations(Validator(UpdateProductRequest(product=product)))
    assert found == {"product.variants[1].price": "is required"}


def test_what_a_service_finds_comes_on_top_and_one_fault_of_a_field_is_enough() -> None:
    validator = Validator(PlaceOrderRequest(request_id=UUID, payment_token="tok"))
    validator.check(False, "lines", "must be 1 to 1000")
    validator.check(False, "customer_id", "must be printable")
    validator.check(True, "payment_token", "is fine")
    validator.add([Violation("customer_id", "is too long"), Violation("extra", "is odd")])
    assert violations(validator) == {
        "lines": "is required",
        "customer_id": "must be printable",
        "extra": "is odd",
    }


# Masks

FIELDS = ("display_name", "email", "country")


def test_a_mask_names_the_fields_to_change() -> None:
    given_ = Customer(customer_id="c", email="a@example.org")
    assert masked_paths(FieldMask(paths=["country", "email"]), given_, FIELDS) == ["email", "country"]
    assert masked_paths(FieldMask(paths=["*"]), given_, FIELDS) == list(FIELDS)
    assert masked_paths(FieldMask(), given_, FIELDS) == ["email"]


def test_each_bad_path_of_a_mask_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        masked_paths(FieldMask(paths=["email", "nope", "version", "*"]), Customer(), FIELDS)
    assert [v.field for v in caught.value.violations] == [f"update_mask.paths[{i}]" for i in (1, 2, 3)]


# Pages


def before(token: Position) -> str:
    return str(token["before"])


def test_page_sizes() -> None:
    def size(asked: int) -> int:
        request = ListOrdersRequest(page_size=asked)
        check = Validator(request)
        wanted, after = asked_page(request, check, before)
        check.done()
        assert after is None
        return wanted

    assert [size(n) for n in (0, 1, 500, 501)] == [50, 1, 500, 500]
    with pytest.raises(InvalidArgument):
        size(-1)


@pytest.mark.parametrize("token", ["no token", PageToken.encode({"other": 1}, fingerprint(ListOrdersRequest()))])
def test_all_that_is_wrong_with_a_page_is_named_at_once(token: str) -> None:
    request = ListOrdersRequest(page_size=-1, page_token=token)
    check = Validator(request)
    asked_page(request, check, before)
    check.check(False, "status", "is unknown")
    assert violations(check).keys() == {"page_size", "page_token", "status"}


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_a_token_gives_its_position_back(position: dict[str, str | int]) -> None:
    assert PageToken.decode(PageToken.encode(position, "filter"), "filter") == position


def test_no_token_asks_for_the_first_page() -> None:
    assert PageToken.decode("", "filter") == {}


@given(st.text(min_size=1) | st.text("abcDEF019-_=+/", min_size=1))
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PageToken.decode(text, "filter")
    assert [v.field for v in caught.value.violations] == ["page_token"]


def test_a_token_fits_only_the_request_it_was_made_for() -> None:
    first = ListOrdersRequest(customer_id="c", page_size=5)
    token = PageToken.encode({"before": "x"}, fingerprint(first))
    second = ListOrdersRequest(customer_id="c", page_size=7, page_token=token)
    assert PageToken.decode(token, fingerprint(second)) == {"before": "x"}
    with pytest.raises(InvalidArgument):
        PageToken.decode(token, fingerprint(ListOrdersRequest(customer_id="d")))


def test_a_signed_token_is_made_by_nobody_without_the_key() -> None:
    request, position = ListOrdersRequest(customer_id="c"), {"before": "x"}
    made_for = fingerprint(request)
    token = PageToken.encode(position, made_for, "key")
    assert PageToken.decode(token, made_for, "key") == position
    for forged in (PageToken.encode(position, made_for), PageToken.encode(position, made_for, "another key")):
        with pytest.raises(InvalidArgument):
            PageToken.decode(forged, made_for, "key")
    with pytest.raises(InvalidArgument):
        PageToken.decode(token, made_for, "another key")
    request.page_token = token
    check = Validator(request)
    assert asked_page(request, check, before, key="key") == (50, "x")
    assert asked_page(request, check, before, key="another key") == (50, None)
    assert violations(check).keys() == {"page_token"}


# Errors


def test_the_reason_and_the_violations_travel_with_the_status() -> None:
    status = to_status(InvalidArgument([Violation("a", "is bad"), Violation("b", "is worse")], reason="BAD_INPUT"))
    info, bad = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("BAD_INPUT", "polymart")
    assert status.details[1].Unpack(bad)
    assert [v.field for v in bad.field_violations] == ["a", "b"]


@given(st.integers(1, 1_500), st.text(max_size=400))
def test_a_status_always_fits_into_a_clients_metadata(count: int, text: str) -> None:
    status: Status = to_status(InvalidArgument([Violation(f"lines[{i}].sku{text}", text) for i in range(count)]))
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8_000
    bad = BadRequest()
    status.details[1].Unpack(bad)
    shown = [v for v in bad.field_violations if v.field]
    left = sum(int(v.description.split()[1]) for v in bad.field_violations if not v.field)
    assert len(shown) + left == count


def test_the_text_of_what_nobody_expected_stays_inside() -> None:
    for error in (RuntimeError("secret"), Internal("secret"), OSError("secret"), KeyError("secret")):
        assert "secret" not in str(as_ours(error))
    for outage in (Unavailable("db-7:5432 secret"), Aborted("tuple of secret")):
        told = as_ours(outage)
        assert (told.code, told.reason) == (outage.code, outage.reason)
        assert "secret" not in str(told)
    assert str(as_ours(Unavailable("the service is stopping", reason="STOPPING"))) == "the service is stopping"
    assert as_ours(RuntimeError()).code == "INTERNAL"
    assert as_ours(TimeoutError()).code == as_ours(ConnectionResetError()).code == "UNAVAILABLE"
    assert as_ours(NotImplementedError()).code == "UNIMPLEMENTED"
    assert str(as_ours(NotFound("order 7"))) == "order 7"
