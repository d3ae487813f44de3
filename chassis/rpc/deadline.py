"""Deadlines: required of callers, and passed on to every call below, a little shorter."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from chassis.errors import InvalidArgument, Violation
from chassis.rpc.around import Call

# What is left for the way back when a call below used its whole time.
MARGIN = 0.05

_expires: ContextVar[float | None] = ContextVar("polymart_deadline", default=None)


def remaining() -> float | None:
    """Seconds a call below may take, None outside of a call with a deadline. May be 0."""
    expires = _expires.get()
    return None if expires is None else max(0.0, expires - time.monotonic() - MARGIN)


@asynccontextmanager
async def deadline_required(call: Call) -> AsyncIterator[None]:
    """Refuses a call without a deadline, except streams named Watch* or Stream*, health and reflection."""
    left = call.context.time_remaining()
    if left is None and not call.open_ended and not call.infrastructure:
        violation = Violation("deadline", "every call needs a deadline")
        raise InvalidArgument([violation], reason="DEADLINE_REQUIRED")
    token = _expires.set(None if left is None else time.monotonic() + left)
    try:
        yield
    finally:
        _expires.reset(token)
