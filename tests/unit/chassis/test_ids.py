from uuid import UUID, uuid4

import pytest

from chassis.ids import is_uuid

DIGITS = uuid4().hex


@pytest.mark.parametrize("text", [str(UUID(DIGITS)), str(UUID(DIGITS)).upper()])
def test_a_uuid_may_be_in_either_case(text: str) -> None:
    assert is_uuid(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        DIGITS,
        f"urn:{DIGITS}",
        "{{{{" + DIGITS,
        f"{DIGITS}----",
        f"{{{UUID(DIGITS)}}}",
        "٠" + str(UUID(DIGITS))[1:],
    ],
)
def test_what_postgresql_refuses_or_is_spelled_otherwise_is_no_uuid(text: str) -> None:
    assert not is_uuid(text)
