"""A gRPC server with health, reflection and what happens around each call."""

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from chassis.config import split_address
from chassis.metrics import Metrics
from chassis.rpc.around import AroundInterceptor
from chassis.rpc.deadline import deadline_required
from chassis.rpc.errors import errors_as_status
from chassis.rpc.telemetry import TelemetryAround
from chassis.telemetry import Tracing

# The names that health answers to, beside those of the servicers: whether it can be used, and whether it lives.
READINESS = ""
LIVENESS = "liveness"
# Seconds after which a client is asked for another connection, for which it looks the addresses up again: so it finds
# servers that came later. Calls under way go on, and open-ended ones are cut off after the grace, to be taken up anew.
CONNECTION_AGE = 300.0
# What the library takes by default: a message over it ends its call before the service sees it.
MAX_REQUEST_BYTES = 4 * 1024 * 1024
_CONNECTION_GRACE = 3600.0
_OPTIONS = (
    # Two servers must not share a port unnoticed.
    ("grpc.so_reuseport", 0),
    # Clients that ping to notice a dead server aren't cut off for it.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A client that went away without a word is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class CannotListen(Exception):
    """An address can't be bound; the text says which, by its setting, and why."""


@dataclass(frozen=True, slots=True)
class Servicer:
    """An implementation, the generated function that adds it, and its full name, "polymart.order.v1.OrderService"."""

    add: Callable[[Any, grpc.aio.Server], None]
    implementation: object
    name: str


class RpcServer:
    """Serves health and reflection once started, the servicers once it accepts, and NOT_SERVING until told.

    Health by the name "liveness" is SERVING from the start to the stop: whoever restarts what doesn't answer is not to
    restart what waits for an engine.
    """

    def __init__(
        self,
        service: str,
        servicers: Sequence[Servicer],
        *,
        tracing: Tracing,
        metrics: Metrics,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ):
        self._interceptor = AroundInterceptor(
            [errors_as_status, TelemetryAround(service, tracing, metrics), deadline_required]
        )
        # The library spreads the age by a tenth, so that clients don't come back all at once.
        ages = (("max_connection_age_ms", CONNECTION_AGE), ("max_connection_age_grace_ms", _CONNECTION_GRACE))
        options = (
            *_OPTIONS,
            ("grpc.max_receive_message_length", max_request_bytes),
            *((f"grpc.{name}", int(seconds * 1000)) for name, seconds in ages),
        )
        self._server = grpc.aio.server(interceptors=[self._interceptor], options=options)
        self._health = HealthServicer()
        self._names = [servicer.name for servicer in servicers]
        for servicer in servicers:
            servicer.add(servicer.implementation, self._server)
        add_HealthServicer_to_server(self._health, self._server)  # type: ignore[no-untyped-call]
        known = [*self._names, HEALTH.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(known, self._server)  # type: ignore[no-untyped-call]

    async def start(self, address: str) -> str:
        """Listen on host:port, 0 for a free port, and return where. Raises CannotListen."""
        host, port = split_address(address)
        _check_free(host, port, f"POLYMART_GRPC_ADDRESS {address}")
        await self.set_serving(False)
        await self._health.set(LIVENESS, HealthCheckResponse.SERVING)
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListen(f"POLYMART_GRPC_ADDRESS {address} is taken") from error
        await self._server.start()
        return f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"

    def accept(self) -> None:
        """Let calls reach the servicers."""
        self._interceptor.accept()

    async def set_serving(self, serving: bool) -> None:
        status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        for name in (READINESS, *self._names):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Take no more calls, end the open-ended ones, and give the others `grace` seconds to finish."""
        await self._health.enter_graceful_shutdown()
        self._interceptor.end_streams()
        await self._server.stop(grace)


def _check_free(host: str, port: int, what: str) -> None:
    """The library says no more than that it failed, and that in several lines. Raises CannotListen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CannotListen(f"{what} can't be listened on: {error.strerror}") from error
