"""Errors on the wire: a google.rpc.Status with ErrorInfo, what is wrong part by part, and back again in a client."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure
from google.rpc.status_pb2 import Status

from chassis import errors
from chassis.errors import FailedPrecondition, InvalidArgument, PolymartError, Violation
from chassis.rpc.around import Call

DOMAIN = "polymart"
_DETAILS = "grpc-status-details-bin"
# A client refuses over 8 KiB of trailing metadata by default, and what is in there is sent base64-encoded.
_LONGEST_MESSAGE = 500
_VIOLATION_BYTES = 4_000


class _Unimplemented(PolymartError):
    code = "UNIMPLEMENTED"
    default_reason = "UNIMPLEMENTED"


_BY_CODE: dict[str, type[PolymartError]] = {
    kind.code: kind
    for kind in (
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Internal,
    )
}


# Errors of these reasons speak of hosts and drivers: that is for the log.
_CALLERS_TEXT = {
    errors.Unavailable.default_reason: "a store or peer can't be reached",
    errors.Aborted.default_reason: "others changed the same thing meanwhile; read it again",
}


def as_ours(error: Exception) -> PolymartError:
    """What a caller is told of `error`: nothing but INTERNAL of what nobody expected, and no host's or driver's word
    of an outage."""
    if isinstance(error, PolymartError) and error.reason in _CALLERS_TEXT:
        return _BY_CODE[error.code](_CALLERS_TEXT[error.reason])
    if isinstance(error, errors.Internal):
        return errors.Internal("internal error", reason=error.reason)
    if isinstance(error, PolymartError):
        return error
    if isinstance(error, NotImplementedError):
        return _Unimplemented("not implemented")
    if isinstance(error, OSError | TimeoutError):
        return errors.Unavailable(_CALLERS_TEXT["UNAVAILABLE"])
    return errors.Internal("internal error")


def to_status(error: PolymartError) -> Status:
    """The error with its reason and one violation for each bad field, or for each part that doesn't fit the state.

    Of so many violations that a client couldn't receive them the last one says how many more there are.
    """
    code: int = getattr(grpc.StatusCode, error.code).value[0]
    status = Status(code=code, message=_shortened(str(error), _LONGEST_MESSAGE))
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if isinstance(error, InvalidArgument):
        bad = BadRequest()
        for v in _shown(error.violations):
            bad.field_violations.add(field=v.field, description=v.description)
        status.details.add().Pack(bad)
    elif isinstance(error, FailedPrecondition) and error.violations:
        failure = PreconditionFailure()
        for v in _shown(error.violations, len(error.reason)):
            failure.violations.add(type=error.reason, subject=v.field, description=v.description)
        status.details.add().Pack(failure)
    return status


def _shown(violations: Sequence[Violation], more: int = 0) -> Iterator[Violation]:
    """Those that there is room for, each with `more` bytes; then how many there are beside."""
    room = _VIOLATION_BYTES
    for index, v in enumerate(violations):
        shown = Violation(_shortened(v.field, 200), _shortened(v.description, 300))
        room -= len(shown.field.encode()) + len(shown.description.encode()) + more + 10
        if room < 0:
            yield Violation("", f"and {len(violations) - index} more")
            return
        yield shown


def _shortened(text: str, most: int) -> str:
    """At most `most` bytes of UTF-8."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= most else raw[: most - 3].decode("utf-8", "ignore") + "…"


def from_rpc(error: grpc.aio.AioRpcError, peer: str) -> PolymartError:
    """A failed call as one of our errors, with the reason and the violations the peer gave."""
    reason, violations = None, []
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                status = Status.FromString(value)
            except DecodeError:
                continue
            for detail in status.details:
                info, bad, unmet = ErrorInfo(), BadRequest(), PreconditionFailure()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(bad):
                    violations = [Violation(v.field, v.description) for v in bad.field_violations]
                elif detail.Unpack(unmet):
                    violations = [Violation(v.subject, v.description) for v in unmet.violations]
    code = error.code()
    text = f"{peer}: {error.details() or code.name}"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(violations or [Violation("", text)], reason=reason)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return FailedPrecondition(text, reason=reason, violations=violations)
    if code is grpc.StatusCode.CANCELLED:
        # By the peer, as it stopped: a call that we cancel doesn't end in an error.
        return errors.Unavailable(text)
    return _BY_CODE.get(code.name, errors.Internal)(text, reason=reason)


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Around a call to `peer`: its failure as one of chassis.errors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, peer) from error


@asynccontextmanager
async def errors_as_status(call: Call) -> AsyncIterator[None]:
    """Ends a call that raised with the status that says why."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        ours = as_ours(error)
        status = to_status(ours)
        code: grpc.StatusCode = getattr(grpc.StatusCode, ours.code)
        await call.context.abort(code, status.message, ((_DETAILS, status.SerializeToString()),))
