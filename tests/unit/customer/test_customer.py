from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_svc.domain.customer import Customer, Details, detail_violations, id_violations

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def violations(**values: str) -> list[str]:
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
