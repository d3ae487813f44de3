"""Tokens: what was signed comes back, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.consistency import ConsistencyToken
from chassis.signing import sign, signed

KEY = "a key of the tests, of enough characters"


@given(st.binary())
def test_what_was_signed_comes_back(body: bytes) -> None:
    token = sign(body, key=KEY, purpose="test")
    assert signed(token, key=KEY, purpose="test") == body
    assert token.isascii()
    assert not set(token) & set("+/=&?# ")


@given(st.binary(min_size=1), st.integers(0), st.characters(categories=["L", "N", "P"]))
def test_a_token_of_which_anything_was_changed_is_refused(body: bytes, place: int, other: str) -> None:
    token = sign(body, key=KEY, purpose="test")
    # The last character may have bits that no byte has.
    place %= len(token) - 1
    changed = token[:place] + other + token[place + 1 :]
    if changed != token:
        with pytest.raises(ValueError):  # noqa: PT011
            signed(changed, key=KEY, purpose="test")


@given(st.text())
def test_text_of_others_is_no_token(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        signed(text, key=KEY, purpose="test")


def test_a_token_is_of_one_key_and_one_purpose() -> None:
    token = sign(b"body", key=KEY, purpose="test")
    for key, purpose in ((KEY, "other"), (KEY + "x", "test")):
        with pytest.raises(ValueError, match="isn't signed"):
            signed(token, key=key, purpose=purpose)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.integers(1, 2**63))
def test_a_consistency_token_tells_what_was_written(product_id: str, version: int) -> None:
    token = ConsistencyToken(product_id, version)
    assert ConsistencyToken.decode(token.encode(KEY), KEY) == token
    with pytest.raises(ValueError, match="isn't signed"):
        ConsistencyToken.decode(sign(b'["p",1]', key=KEY, purpose="page"), KEY)
