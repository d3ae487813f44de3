from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polymart.customer.v1.customer_pb2 import PersonalData

from chassis.errors import FailedPrecondition
from customer_svc.adapters import sealing
from customer_svc.adapters.grpc_records import GrpcRecords
from customer_svc.application.ports import Unreadable
from customer_svc.domain.address import Address
from customer_svc.domain.customer import Customer, Details, Muted, detail_violations, id_violations
from customer_svc.domain.verification import Verification

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOME = Address("home", ("1 St James's Square",), "London", "GB", postal_code="SW1Y 4LB")


def violations(**values: Any) -> list[str]:
    return [v.field for v in detail_violations(values, "customer.")]


@pytest.mark.parametrize(
    "email",
    ["ada@example.org", "a.b+c@sub.example.co.uk", "o'hara@example.org", "x@xn--bcher-kva.example", ""],
)
def test_addresses_people_have_are_taken(email: str) -> None:
    assert violations(email=email) == []


@pytest.mark.parametrize(
    "email",
    [
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "a da@example.org",
        ".ada@example.org",
        "ada..b@example.org",
        "ada@-example.org",
        "ada@example..org",
        "ada@example.org,bob@example.org",
        "<ada@example.org>",
        "ada@example.org\r\nBcc: all@example.org",
        "ada@example.org\n",
        "adä@example.org",
        "a" * 65 + "@example.org",
    ],
)
def test_what_is_no_address_is_refused_once(email: str) -> None:
    assert violations(email=email) == ["customer.email"]


@given(st.text(max_size=260), st.sampled_from(["\r", "\n", "\0", "\x1b", "\u2028", "\x85"]), st.integers(0, 260))
def test_no_detail_takes_control_characters(text: str, bad: str, at: int) -> None:
    value = text[:at] + bad + text[at:]
    for name in ("display_name", "email", "country"):
        assert f"customer.{name}" in violations(**{name: value})


def test_every_violation_is_told() -> None:
    assert violations(display_name="x" * 201, email="nobody", country="y" * 101) == [
        "customer.display_name",
        "customer.email",
        "customer.country",
    ]
    assert len(list(id_violations("\n" * 129, "customer_id"))) == 2


def test_names_of_all_scripts_are_taken() -> None:
    assert violations(display_name="Zoë 王秀英 علی न्‍ऋ", country="Côte d'Ivoire") == []


@given(st.lists(st.tuples(st.sampled_from(["display_name", "country"]), st.sampled_from(["a", "b"]))))
def test_the_etag_changes_with_every_write_and_only_then(changes: list[tuple[str, str]]) -> None:
    customer = Customer.register("c1", Details(), now=NOW)
    for step, (name, value) in enumerate(changes):
        before, customer = customer, customer.changed({name: value}, now=NOW + timedelta(seconds=step))
        assert (customer.etag == before.etag) == (customer.details == before.details) == (customer is before)


def test_an_address_is_verified_until_it_changes() -> None:
    customer = Customer.register("c1", Details(email="ada@example.org"), now=NOW).verified(now=NOW)
    assert customer.email_verified
    assert customer.verified(now=NOW) is customer
    assert customer.changed({"country": "France"}, now=NOW).email_verified
    assert not customer.changed({"email": "ada@example.net"}, now=NOW).email_verified


def test_of_a_customer_who_was_erased_nothing_is_left_but_their_id_and_when() -> None:
    details = Details("Ada", "ada@example.org", "UK", (HOME,), frozenset({Muted("EMAIL", "WELCOME")}))
    erased = Customer.register("c1", details, now=NOW).verified(now=NOW).forgotten(now=NOW)
    assert erased == Customer("c1", Details(), 3, NOW, NOW, erased=True)
    assert erased.forgotten(now=NOW) is erased


def test_every_bad_field_of_every_address_is_named() -> None:
    bad = Address("home", ("x" * 201, "a\nb"), "y" * 101, "gb", "\0", "p" * 21)
    fields = violations(addresses=(HOME, bad, *[HOME] * 19))
    assert fields[:8] == [
        "customer.addresses",
        "customer.addresses[1].recipient",
        "customer.addresses[1].postal_code",
        "customer.addresses[1].locality",
        "customer.addresses[1].lines[0]",
        "customer.addresses[1].lines[1]",
        "customer.addresses[1].country_code",
        "customer.addresses[1].label",
    ]
    assert violations(addresses=(HOME,)) == []
    assert violations(addresses=(replace(HOME, lines=("l",) * 6),)) == ["customer.addresses[0].lines"]


@given(st.text(), st.text(), st.integers(-10, 100_000))
def test_a_code_proves_an_address_for_a_day_and_no_other_does(code: str, other: str, seconds: int) -> None:
    verification = Verification.of("v1", code, now=NOW)
    now = NOW + timedelta(seconds=seconds)
    assert verification.proven_by(code, now=now) == (seconds < 86_400)
    assert code == other or not verification.proven_by(other, now=now)
    assert (verification.wait(now=now) == timedelta(0)) == (seconds >= 60)


async def test_an_export_without_the_others_addresses_is_refused() -> None:
    nobody = GrpcRecords(None, None)
    for records in (nobody.orders("c1"), nobody.notifications("c1")):
        with pytest.raises(FailedPrecondition) as caught:
            await anext(records)
        assert caught.value.reason == "EXPORT_NOT_CONFIGURED"


@given(st.binary(max_size=200), st.integers(min_value=0), st.integers(1, 255))
def test_what_is_sealed_opens_with_its_key_alone_and_only_unaltered(data: bytes, at: int, by: int) -> None:
    key, message = sealing.new_key(), PersonalData(verification_code=data.hex())
    sealed = sealing.seal(key, message)
    assert sealing.unseal(key, sealed) == message
    assert sealed != sealing.seal(key, message), "the same twice can't be told from something else"
    altered = bytearray(sealed)
    altered[at % len(sealed)] ^= by
    for wrong_key, wrong in ((sealing.new_key(), sealed), (key, bytes(altered)), (key, sealed[:20]), (key, b"")):
        with pytest.raises(Unreadable):
            sealing.unseal(wrong_key, wrong)


STEPS = st.one_of(
    st.fixed_dictionaries({"email": st.sampled_from(["", "a@example.org", "b@example.org"])}),
    st.fixed_dictionaries({"country": st.sampled_from(["", "x"])}),
    st.sampled_from(["verify", "erase"]),
)


@given(st.lists(STEPS))
def test_whatever_happens_every_change_counts_and_only_the_proven_address_is_verified(
    steps: list[Any],
) -> None:
    customer = Customer.register("c1", Details(email="a@example.org", addresses=(HOME,)), now=NOW)
    proven: str | None = None
    for step in steps:
        if customer.erased and step != "erase":
            continue  # the use cases refuse it
        before = customer
        if step == "verify":
            customer, proven = customer.verified(now=NOW), customer.details.email
        elif step == "erase":
            customer = customer.forgotten(now=NOW)
        else:
            customer = customer.changed(step, now=NOW)
        if customer.details.email != proven:
            proven = None
        assert customer.version == before.version + (customer != before)
        assert customer.email_verified == (proven is not None and not customer.erased)
        assert not customer.erased or customer.details == Details()
