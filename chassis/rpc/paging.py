"""Keyset pages: page sizes and opaque page tokens, as AIP-158 has them."""

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

from google.protobuf.message import Message

from chassis.errors import InvalidArgument, Violation
from chassis.ids import printable
from chassis.rpc.validation import Validator
from chassis.signing import sign, signed

P = TypeVar("P")
Position = Mapping[str, str | int]


def asked_page(
    request: Any,
    check: Validator,
    read: Callable[[Position], P],
    *,
    default: int = 50,
    maximum: int = 500,
    key: str = "",
) -> tuple[int, P | None]:
    """The rows that a list request asks for, `default` for 0 and never over `maximum`, and where its earlier page
    ended, None for the first page.

    What is wrong with either becomes a violation in `check`. `read` makes of a token's position what the service works
    with; it raises what reading raises for one that the service never made. `key` is what its tokens are signed with.
    """
    check.check(request.page_size >= 0, "page_size", "must not be negative")
    size = min(request.page_size or default, maximum)
    if not request.page_token:
        return size, None
    try:
        return size, read(PageToken.decode(request.page_token, fingerprint(request), key))
    except InvalidArgument as error:
        check.add(error.violations)
    except (KeyError, TypeError, ValueError, OverflowError):
        check.check(False, "page_token", "is not a token of this service")
    return size, None


def fingerprint(request: Message) -> str:
    """What a list request asks for, its page aside: equal for requests whose pages belong together."""
    question = type(request)()
    question.CopyFrom(request)
    question.ClearField("page_size")
    question.ClearField("page_token")
    bytes_ = question.SerializeToString(deterministic=True)
    return blake2b(bytes_, digest_size=16, person=b"page").hexdigest()


def text_in(position: Position, name: str) -> str:
    """Raises KeyError, ValueError for what no store could hold."""
    value = position[name]
    if not isinstance(value, str) or not printable(value):
        raise ValueError(name)
    return value


def number_in(position: Position, name: str, limit: int = 2**63) -> int:
    """A number from -`limit` to below it. Raises KeyError, ValueError."""
    value = position[name]
    if not isinstance(value, int) or not -limit <= value < limit:
        raise ValueError(name)
    return value


class PageToken:
    """Where the last page ended, as an opaque string that fits only the request it was made for.

    With a `key`, which all replicas of a service share, nobody else can make one.
    """

    @staticmethod
    def encode(position: Position, expect: str, key: str = "") -> str:
        """`expect` is the request's `fingerprint`."""
        return sign(json.dumps(dict(position), separators=(",", ":")).encode(), key=key, purpose=expect)

    @staticmethod
    def decode(token: str, expect: str, key: str = "") -> dict[str, str | int]:
        """The position; empty for an empty token, which asks for the first page.

        Raises InvalidArgument for what isn't a token, or is one of a request that asked something else.
        """
        if not token:
            return {}
        try:
            body = signed(token, key=key, purpose=expect)
        except ValueError:
            raise InvalidArgument([Violation("page_token", "is not a token of this request's earlier page")]) from None
        position: dict[str, str | int] = json.loads(body)
        return position
