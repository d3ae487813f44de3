"""What the servicers share about requests."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc

from chassis.errors import Violation
from chassis.rpc.validation import Validator

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_ACTOR = "polymart-actor"
_MAX_ACTOR = 200


def actor(context: Context) -> str:
    """Who calls, as the call's metadata tells; empty if it doesn't."""
    for key, value in context.invocation_metadata() or ():
        if key == _ACTOR and isinstance(value, str):
            return value[:_MAX_ACTOR]
    return ""


def collect(validator: Validator, faults: Iterable[Violation], path: str = "") -> None:
    for fault in faults:
        validator.check(False, path + fault.field, fault.description)
