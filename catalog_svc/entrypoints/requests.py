"""What the servicers share about requests."""

from typing import Any, TypeAlias

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_ACTOR = "polymart-actor"
_MAX_ACTOR = 200


def actor(context: Context) -> str:
    """Who calls, as the call's metadata tells; empty if it doesn't."""
    for key, value in context.invocation_metadata() or ():
        if key == _ACTOR and isinstance(value, str):
            return value[:_MAX_ACTOR]
    return ""
