"""Identifiers: time-ordered UUIDs made here, opaque strings taken from callers, and both as one NATS subject token."""

import unicodedata
from collections.abc import Callable
from itertools import count
from uuid import UUID, uuid5

import uuid_utils

NewId = Callable[[], str]

_NAMESPACE = UUID("6f0d1c5e-0a2b-5c43-9d57-3f1f0e0b7a11")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def uuid7() -> str:
    """A new UUIDv7 (RFC 9562): sorts by creation time."""
    return str(uuid_utils.uuid7())


def derived_id(*parts: str) -> str:
    """A UUIDv5 of `parts`: the same parts give the same id, so that a redelivered message repeats its effects' ids."""
    return str(uuid5(_NAMESPACE, "\x00".join(parts)))


def is_uuid(text: str) -> bool:
    """Whether `text` is a UUID as it is usually written, in either case: 32 digits and four hyphens."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def printable(text: str) -> bool:
    """Whether `text` can be an id, a SKU or a name: without control characters (NUL is one) and line breaks.

    What one service takes the others must take as well, so this is every service's rule.
    """
    return text.isprintable() or not any(unicodedata.category(character) in _UNPRINTABLE for character in text)


def subject_token(key: str) -> str:
    """`key` as a single NATS subject token: every byte outside [A-Za-z0-9_-] as `=XX`; injective."""
    if not key:
        raise ValueError("an empty id has no subject token")
    if _PLAIN.issuperset(key):
        return key
    return "".join(c if c in _PLAIN else "".join(f"={b:02X}" for b in c.encode()) for c in key)


def sequential_ids(prefix: int = 0) -> NewId:
    """Predictable UUIDs for tests."""
    numbers = count(1)
    return lambda: str(UUID(int=(prefix << 64) + next(numbers)))
