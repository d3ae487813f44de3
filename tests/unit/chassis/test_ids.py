from uuid import UUID

import pytest

from chassis.ids import is_uuid, printable

DIGITS = "01a20f82e418712c85ea2c525f1630d0"


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


@pytest.mark.parametrize(
    "text", ["", "A-1", "Müller & Söhne", "杯子", "10\N{NO-BREAK SPACE}cm", "👩\N{ZERO WIDTH JOINER}🔧"]
)
def test_what_people_write_in_names_is_printable(text: str) -> None:
    assert printable(text)


@pytest.mark.parametrize("text", ["a\0b", "A\nB", "A\tB", "A\x7f", "a\x85b", "a\N{LINE SEPARATOR}b", "a\ud800b"])
def test_control_characters_and_line_breaks_are_not_printable(text: str) -> None:
    assert not printable(text)
