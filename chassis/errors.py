"""The errors that cross a service's boundary, each knowing its gRPC code by name.

    PolymartError
    ├── InvalidArgument       INVALID_ARGUMENT     the request is wrong, whatever the state; lists every violation
    ├── NotFound              NOT_FOUND
    ├── AlreadyExists         ALREADY_EXISTS
    ├── FailedPrecondition    FAILED_PRECONDITION  right request, wrong state; retrying unchanged won't help
    ├── Aborted               ABORTED              a concurrent change won (stale etag); read again, then retry
    ├── ResourceExhausted     RESOURCE_EXHAUSTED
    ├── Unavailable           UNAVAILABLE          an engine or peer can't be reached; retry with backoff
    ├── DeadlineExceeded      DEADLINE_EXCEEDED
    └── Internal              INTERNAL             a bug; its text never reaches the caller

`reason` is the stable UPPER_SNAKE identifier of docs/errors.md, sent as `ErrorInfo.reason`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class PolymartError(Exception):
    """Base of all errors a caller may see; `str()` of it is the caller's message."""

    code = "UNKNOWN"
    default_reason = "UNKNOWN"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None):
        super().__init__(message)
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field of a request: its path (`lines[2].sku`) and what is wrong with it."""

    field: str
    description: str


class InvalidArgument(PolymartError):
    code = "INVALID_ARGUMENT"
    default_reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[Violation], *, reason: str | None = None):
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), reason=reason)
        self.violations = tuple(violations)


class NotFound(PolymartError):
    code = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class AlreadyExists(PolymartError):
    code = "ALREADY_EXISTS"
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(PolymartError):
    """`violations` say what in the request doesn't fit the state, where its parts can be told apart."""

    code = "FAILED_PRECONDITION"
    default_reason = "FAILED_PRECONDITION"

    def __init__(self, message: str, *, reason: str | None = None, violations: Sequence[Violation] = ()):
        super().__init__(message, reason=reason)
        self.violations = tuple(violations)


class Aborted(PolymartError):
    code = "ABORTED"
    default_reason = "CONCURRENT_CHANGE"


class ResourceExhausted(PolymartError):
    code = "RESOURCE_EXHAUSTED"
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(PolymartError):
    code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(PolymartError):
    code = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"


class Internal(PolymartError):
    code = "INTERNAL"
    default_reason = "INTERNAL"


def stale_etag(kind: str, key: str) -> Aborted:
    """The error of every write whose etag isn't the current one."""
    return Aborted(f"{kind} {key} was changed meanwhile; read it again", reason="STALE_ETAG")
