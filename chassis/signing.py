"""Tokens that nobody without the key can make: a body and its signature, opaque and safe in a URL.

A token is of one purpose: that of another is none here, though it is signed with the same key.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256

_SIGNATURE = sha256().digest_size


def sign(body: bytes, *, key: str, purpose: str) -> str:
    return urlsafe_b64encode(_signature(body, key, purpose) + body).decode().rstrip("=")


def signed(token: str, *, key: str, purpose: str) -> bytes:
    """The body. Raises ValueError for what isn't a token that `sign` made with this key for this purpose."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (Base64Error, ValueError):
        raise ValueError("is no token") from None
    signature, body = raw[:_SIGNATURE], raw[_SIGNATURE:]
    if not hmac.compare_digest(signature, _signature(body, key, purpose)):
        raise ValueError("isn't signed as it should be")
    return body


def _signature(body: bytes, key: str, purpose: str) -> bytes:
    return hmac.digest(key.encode(), purpose.encode() + b"\0" + body, sha256)
