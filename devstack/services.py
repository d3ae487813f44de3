"""The services as processes: what each is told in its environment, and how long it takes until it serves."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from devstack.engine import loopback
from devstack.engines import Engines
from devstack.errors import EngineError, reason
from devstack.home import python_environment
from devstack.search import ACCESS

START_PATIENCE = 60.0
MIGRATE_PATIENCE = 60.0
POLL = 0.05
DEFAULT_DRAIN_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a service may know of: its databases on PostgreSQL by variable, engines, other services, and whether it
    signs tokens."""

    databases: Mapping[str, str]
    engines: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    token_key: bool = False


SERVICES: dict[str, Needs] = {
    "catalog_svc": Needs({}, ("mongodb",), token_key=True),
    "inventory_svc": Needs({"POSTGRES_URL": "inventory"}),
    "search_svc": Needs({}, ("elasticsearch",), ("catalog_svc", "inventory_svc"), token_key=True),
    "order_svc": Needs({"POSTGRES_URL": "order"}, (), ("catalog_svc",)),
    "payment_svc": Needs({"POSTGRES_URL": "payment", "PROVIDER_URL": "provider"}),
    "customer_svc": Needs({"POSTGRES_URL": "customer"}, (), ("order_svc", "notification_svc")),
    "notification_svc": Needs({"POSTGRES_URL": "notification"}),
    "email_svc": Needs({}, ("smtp",), ("customer_svc",)),
}
ALL_SERVICES = tuple(SERVICES)


def service_environment(
    service: str, engines: Engines, *, address: str, metrics_address: str, addresses: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of one service's process.

    Of the addresses, URLs and ways into engines in the supervisor's own environment it inherits none: only its own are
    set.
    """
    needs = SERVICES[service]
    own = {
        "GRPC_ADDRESS": address,
        "METRICS_ADDRESS": metrics_address,
        "NATS_URL": engines.nats_url,
        **{variable: engines.databases[owner] for variable, owner in needs.databases.items()},
        **{f"{peer.removesuffix('_svc').upper()}_ADDRESS": addresses[peer] for peer in needs.peers},
    }
    if "mongodb" in needs.engines:
        own["MONGODB_URL"] = engines.mongodb_url
    if "elasticsearch" in needs.engines:
        own |= engines.search_settings
    if "smtp" in needs.engines:
        own["SMTP_ADDRESS"] = engines.smtp_address
    if needs.token_key:
        own["TOKEN_KEY"] = engines.home.environ.get("POLYMART_TOKEN_KEY") or engines.home.password("token key")
    inherited = {
        name: value
        for name, value in engines.home.environ.items()
        if not (name.startswith("POLYMART_") and name.endswith(("_URL", "_ADDRESS"))) and name not in ACCESS
    }
    return {**python_environment(inherited), **{f"POLYMART_{name}": value for name, value in own.items()}}


class ServiceProcess:
    """One replica of a service. The first is named like the service, the second `order_svc-2`."""

    def __init__(self, service: str, engines: Engines, replica: int = 1):
        self.service = service
        self.name = service if replica == 1 else f"{service}-{replica}"
        self._engines = engines
        home = engines.home
        # Known before anything runs, so that services can be told of each other in any order.
        self.address = loopback(home.ports.take(self.name)[0])
        self.metrics_address = loopback(home.ports.take(f"{self.name} metrics")[0])
        patience = drain_seconds(home.environ) + 5
        self.process = home.process(self.name, self.name, patience=patience)

    def environment(self, addresses: Mapping[str, str]) -> dict[str, str]:
        return service_environment(
            self.service,
            self._engines,
            address=self.address,
            metrics_address=self.metrics_address,
            addresses=addresses,
        )

    async def migrate(self, addresses: Mapping[str, str]) -> None:
        """Run `python -m <service> migrate`. Raises EngineError with what it said last."""
        process = self._engines.home.process(f"{self.name}-migrate", self.name)
        try:
            command = [sys.executable, "-m", self.service, "migrate"]
            await process.start(command, self.environment(addresses), cwd=self._engines.home.folder)
            self._engines.home.record()
            code = await asyncio.wait_for(process.wait(), MIGRATE_PATIENCE)
        except TimeoutError:
            cause = f"migrate takes longer than {MIGRATE_PATIENCE:.0f} s: {process.last_lines()}"
            raise EngineError(self.name, cause, f"read {process.log}") from None
        finally:
            await process.kill()
        if code != 0:
            cause = f"migrate ended with code {code}: {process.last_lines()}"
            raise EngineError(self.name, cause, f"read {process.log}")

    async def launch(self, addresses: Mapping[str, str]) -> None:
        """Start the process; `wait_until_serving` says when it serves."""
        command = [sys.executable, "-m", self.service]
        await self.process.start(command, self.environment(addresses), cwd=self._engines.home.folder)
        self._engines.home.record()

    async def wait_until_serving(self, patience: float = START_PATIENCE) -> None:
        """Wait for gRPC health SERVING. Raises EngineError with what the service said last."""
        deadline = time.monotonic() + patience
        state = "not reached"
        async with grpc.aio.insecure_channel(self.address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
            stub = HealthStub(channel)  # type: ignore[no-untyped-call]
            while self.process.running:
                try:
                    answer = await stub.Check(HealthCheckRequest(), timeout=2)
                    if answer.status == HealthCheckResponse.SERVING:
                        return
                    state = str(HealthCheckResponse.ServingStatus.Name(answer.status))
                except grpc.aio.AioRpcError as error:
                    state = reason(Exception(error.details()))
                if time.monotonic() > deadline:
                    cause = f"doesn't serve {patience:.0f} s after its start ({state}): {self.process.last_lines()}"
                    raise EngineError(self.name, cause, f"read {self.process.log}")
                await asyncio.sleep(POLL)
        cause = f"ended with code {await self.process.wait()} at its start: {self.process.last_lines()}"
        raise EngineError(self.name, cause, f"read {self.process.log}")

    async def stop(self) -> None:
        """SIGTERM, and wait for its drain."""
        await self.process.stop()
        self._engines.home.record()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; waits for the end by SIGKILL."""
        if number == signal.SIGKILL:
            await self.process.kill()
            self._engines.home.record()
        else:
            self.process.send(number)


def drain_seconds(environ: Mapping[str, str]) -> float:
    try:
        return float(environ.get("POLYMART_DRAIN_SECONDS") or DEFAULT_DRAIN_SECONDS)
    except ValueError:
        return DEFAULT_DRAIN_SECONDS  # the services name the bad variable
