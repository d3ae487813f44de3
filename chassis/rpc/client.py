"""Channels to other services: deadlines passed on, retries for calls that may be repeated, errors as ours."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
from opentelemetry.trace import StatusCode

from chassis.errors import Unavailable
from chassis.rpc.deadline import remaining
from chassis.rpc.errors import translated
from chassis.telemetry import current_traceparent, span

__all__ = ["RpcClient", "channel", "translated"]

S = TypeVar("S")

DEFAULT_DEADLINE = 5.0

ROUND_ROBIN: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A peer that comes back is to be noticed soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Peers are never behind the proxy that the environment may name for the outside.
    ("grpc.enable_http_proxy", 0),
)


class _Calls(grpc.aio.UnaryUnaryClientInterceptor):
    """Within the call in hand and its trace; 5 seconds where there is no other deadline."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        with span(_name(client_call_details.method), kind="client") as current:
            details = _within(client_call_details, client_call_details.timeout or DEFAULT_DEADLINE)
            call = await continuation(details, request)
            if current.is_recording():
                try:
                    code = await call.code()
                except asyncio.CancelledError:
                    call.cancel()
                    raise
                if code is not grpc.StatusCode.OK:
                    current.set_status(StatusCode.ERROR, code.name)
            return call


class _Streams(grpc.aio.UnaryStreamClientInterceptor):
    """Within the call in hand and its trace; without a deadline where there is none."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_within(client_call_details, client_call_details.timeout), request)


def _name(method: str | bytes) -> str:
    return (method.decode() if isinstance(method, bytes) else method).removeprefix("/")


def _within(details: Any, timeout: float | None) -> grpc.aio.ClientCallDetails:
    left = remaining()
    if left is not None:
        timeout = left if timeout is None else min(timeout, left)
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    if traceparent := current_traceparent():
        metadata.add("traceparent", traceparent)
    return grpc.aio.ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


def channel(address: str, *, idempotent: Sequence[str] = ()) -> grpc.aio.Channel:
    """A channel that balances over all addresses of a name.

    `idempotent` are full method names, "polymart.catalog.v1.CatalogService/GetProduct", that are tried again,
    within their deadline, when the peer is UNAVAILABLE.
    """
    names = [dict(zip(("service", "method"), name.split("/"), strict=True)) for name in idempotent]
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {**ROUND_ROBIN, **({"methodConfig": [{"name": names, "retryPolicy": retry}]} if names else {})}
    options = (("grpc.service_config", json.dumps(config)), *OPTIONS)
    return grpc.aio.insecure_channel(address, options=options, interceptors=[_Calls(), _Streams()])


class RpcClient(Generic[S]):
    """A resource: the stub of one peer. Opening it doesn't connect; call through `translated(peer)`."""

    def __init__(self, address: str, stub_type: Callable[[grpc.aio.Channel], S], *, idempotent: Sequence[str] = ()):
        self._address = address
        self._stub_type = stub_type
        self._idempotent = idempotent
        self._channel: grpc.aio.Channel | None = None
        self._stub: S | None = None

    @property
    def stub(self) -> S:
        """Raises Unavailable before `open` and after `close`."""
        if self._stub is None:
            raise Unavailable(f"the channel to {self._address} isn't open")
        return self._stub

    async def open(self) -> None:
        self._channel = channel(self._address, idempotent=self._idempotent)
        self._stub = self._stub_type(self._channel)

    async def close(self) -> None:
        self._stub = None
        if self._channel is not None:
            await self._channel.close()
