"""A span, a duration and a log line for each call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import grpc
import structlog

from chassis.metrics import Metrics
from chassis.rpc.around import Call, Context
from chassis.rpc.errors import as_ours
from chassis.telemetry import Tracing, current_trace_id, span

log = structlog.get_logger(__name__)

# Faults of ours; the others are the caller's, and normal.
_SERIOUS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"})
# What callers are told of these leaves out what happened.
_ENGINES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"})


class TelemetryAround:
    """Continues the caller's trace, measures, and logs: at debug level what went well, with its cause what an engine
    or peer did. Never what was asked."""

    def __init__(self, service: str, tracing: Tracing, metrics: Metrics):
        self._service = service
        self._tracing = tracing
        self._metrics = metrics

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        if call.infrastructure:
            yield
            return
        self._tracing.use()
        name = call.method.removeprefix("/")
        metadata = dict(call.context.invocation_metadata() or ())
        parent = metadata.get("traceparent")
        code, reason, trace_id, bug, cause, began = "OK", None, None, None, None, perf_counter()
        try:
            with span(call.method.removeprefix("/"), parent=parent if isinstance(parent, str) else None, kind="server"):
                trace_id = current_trace_id()
                yield
        except asyncio.CancelledError:
            left = call.context.time_remaining()
            code = "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = _aborted_with(call.context)
            raise
        except Exception as error:
            ours = as_ours(error)
            code, reason = ours.code, ours.reason
            bug = error if code == "INTERNAL" else None
            cause = _cause(error) if code in _ENGINES else None
            raise
        finally:
            seconds = perf_counter() - began
            self._metrics.rpc(name, code, seconds)
            level = log.debug if code == "OK" else log.error if bug else log.warning if code in _SERIOUS else log.info
            level(
                "rpc",
                service=self._service,
                method=name,
                code=code,
                reason=reason,
                cause=cause,
                ms=round(seconds * 1000, 1),
                trace_id=trace_id,
                exc_info=bug,
            )


def _cause(error: Exception) -> str:
    text, below = str(error) or type(error).__name__, error.__cause__
    return text if below is None or str(below) in text else f"{text}: {below}"


def _aborted_with(context: Context) -> str:
    code: object = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
