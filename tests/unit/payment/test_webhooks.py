"""Signatures of webhooks."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payment_svc.entrypoints.webhooks import TOLERANCE_SECONDS, Forged, sign, verify

NOW = 1_800_000_000
SECRET = "a secret of the firm"


def test_the_signature_is_the_one_described() -> None:
    mac = hmac.new(SECRET.encode(), b'1800000000.{"id": "1"}', hashlib.sha256).hexdigest()
    assert sign(SECRET, b'{"id": "1"}', NOW) == f"t=1800000000,v1={mac}"


@given(body=st.binary(), late=st.integers(-TOLERANCE_SECONDS, TOLERANCE_SECONDS))
def test_what_was_signed_is_accepted_within_the_tolerance(body: bytes, late: int) -> None:
    verify(SECRET, sign(SECRET, body, NOW), body, NOW + late)


@given(body=st.binary(), other=st.binary(), secret=st.text(), at=st.integers(0, 2 * NOW))
def test_what_was_altered_is_refused(body: bytes, other: bytes, secret: str, at: int) -> None:
    header = sign(SECRET, body, NOW)
    if other != body:
        with pytest.raises(Forged):
            verify(SECRET, header, other, NOW)
    if secret != SECRET:
        with pytest.raises(Forged):
            verify(secret, header, body, NOW)
    if at != NOW:
        with pytest.raises(Forged):
            verify(SECRET, header.replace(str(NOW), str(at)), body, at)
    if abs(at - NOW) > TOLERANCE_SECONDS:
        with pytest.raises(Forged):
            verify(SECRET, header, body, at)


@given(header=st.text())
def test_no_other_header_is_accepted_nor_breaks_anything(header: str) -> None:
    with pytest.raises(Forged):
        verify(SECRET, header, b"", NOW)


@pytest.mark.parametrize("header", ["t=" + "9" * 5_000, f"t={NOW},v1=\udc80", f"t={NOW}", "v1=", f"t={NOW},v1=,v1"])
def test_a_header_of_odd_parts_is_refused(header: str) -> None:
    with pytest.raises(Forged):
        verify(SECRET, header, b"", NOW)


def test_while_the_secret_changes_either_signature_will_do() -> None:
    old, new = sign("old", b"x", NOW), sign("new", b"x", NOW)
    both = f"{old}, {new.partition(',')[2]}"
    verify("old", both, b"x", NOW)
    verify("new", both, b"x", NOW)
    with pytest.raises(Forged):
        verify("new", f"{old},{new}", b"x", NOW)
