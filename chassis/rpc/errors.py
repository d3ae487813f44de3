"""Errors on the wire: a google.rpc.Status with ErrorInfo, BadRequest for bad input, and back again in a client."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from chassis import errors
from chassis.errors import InvalidArgument, PolymartError, Violation
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
    """The error with its reason and, for bad input, one violation for each bad field.

    Of so many violations that a client couldn't receive them the last one says how many more there are.
    """
    code: int = getattr(grpc.StatusCode, error.code).value[0]
    status = Status(code=code, message=_shortened(str(error), _LONGEST_MESSAGE))
    status.details.add().Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if isinstance(error, InvalidArgument):
        status.details.add().Pack(_bad_request(error.violations))
    return status


def _bad_request(violations: Sequence[Violation]) -> BadRequest:
    shown = BadRequest()
    room = _VIOLATION_BYTES
    for index, v in enumerate(violations):
        entry = BadRequest.FieldViolation(field=_shortened(v.field, 200), description=_shortened(v.description, 300))
        room -= entry.ByteSize() + 4
        if room < 0:
            shown.field_violations.add(description=f"and {len(violations) - index} more")
            break
        shown.field_violations.append(entry)
    return shown


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
                info, bad = ErrorInfo(), BadRequest()
                if detail.Unpack(info):
                    reason = info.reason
                elif detail.Unpack(bad):
                    violations = [Violation(v.field, v.description) for v in bad.field_violations]
    code = error.code()
    text = f"{peer}: {error.details() or code.name}"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(violations or [Violation("", text)], reason=reason)
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
