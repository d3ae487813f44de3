"""The whole stack on one machine: engines, databases, streams, and every service as a process of its own."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.engines import Engines, together
from devstack.errors import EngineError, reason
from devstack.home import Home
from devstack.info import StackInfo, default_home, load, memory, refuse_if_running, stop_running
from devstack.process import Process
from devstack.services import ALL_SERVICES, ServiceProcess

__all__ = ["ALL_SERVICES", "Stack", "StackInfo", "default_home", "load", "stop_running"]

MIGRATIONS_AT_ONCE = 4
BROKER_PATIENCE = 10.0
RESTART_PAUSE = (0.2, 5.0)
STABLE_AFTER = 30.0


class Stack:
    """A stack in `data_dir`, supervised by this process.

        async with Stack(folder) as stack:
            channel = grpc.aio.insecure_channel(stack.address("order_svc"))

    `services`: which to start, all by default. `environ`: what processes inherit; a URL in it replaces an engine.
    `restart`: whether a process that ends unasked is started again. Leaving the block stops everything; the data
    stays. Methods raise EngineError.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        services: Sequence[str] | None = ALL_SERVICES,
        environ: Mapping[str, str] = os.environ,
        on_progress: Callable[[str], None] | None = None,
        restart: bool = True,
    ):
        self._names = ALL_SERVICES if services is None else tuple(services)
        self._home = Home(data_dir, environ=environ, progress=on_progress)
        self._restart = restart
        self._engines: Engines | None = None
        self._services: dict[tuple[str, int], ServiceProcess] = {}
        self._supervisors: dict[str, asyncio.Task[None]] = {}
        if unknown := set(self._names) - set(ALL_SERVICES):
            raise EngineError("stack", f"no such service: {', '.join(sorted(unknown))}", "name some of ALL_SERVICES")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def engines(self) -> Engines:
        if self._engines is None:
            raise EngineError("stack", "is not started", "start it first")
        return self._engines

    @property
    def mailbox(self) -> Path:
        """Where the local sink writes mails, one *.eml each."""
        return self.engines.mailbox

    def refuse_if_running(self) -> None:
        """Raises EngineError while anything of a stack runs in the data folder."""
        refuse_if_running(self._home.folder)

    async def start(self) -> None:
        """Start everything and wait until it serves; if anything fails, all is stopped again."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self._engines = Engines(self._home)
        await self._home.open()
        await self._engines.start()
        for name, engine in self._engines.by_name.items():
            if not engine.external:
                self._supervise(name, engine.process, engine.restart)
        # All of them, so that every service can be told where the others would be.
        planned = [self._service(name) for name in ALL_SERVICES]
        chosen = [service for service in planned if service.service in self._names]
        self._home.progress("preparing databases and streams")
        turn = asyncio.Semaphore(MIGRATIONS_AT_ONCE)
        await together([self._make_streams(), *(self._migrate(service, turn) for service in chosen)])
        self._home.progress(f"starting {len(chosen)} services")
        await together(self._launch(service) for service in chosen)
        self._home.facts["stack"] = self._facts()
        self._home.record()

    async def stop(self) -> None:
        """Stop the services, each with its drain, then the engines. Harmless when nothing runs."""
        supervisors = list(self._supervisors.values())
        self._supervisors.clear()
        for task in supervisors:
            task.cancel()
        await asyncio.gather(*supervisors, return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in self._services.values()))
        if self._engines is not None:
            await self._engines.stop()
        await self._home.close()
        self._services.clear()
        self._engines = None

    def info(self) -> StackInfo:
        """What other processes get by load()."""
        return load(self._home.folder)

    def address(self, service: str, replica: int = 1) -> str:
        """host:port of its gRPC server."""
        return self._running(service, replica).address

    def metrics_address(self, service: str, replica: int = 1) -> str:
        """host:port of its Prometheus metrics."""
        return self._running(service, replica).metrics_address

    def environment(self, service: str, replica: int = 1) -> dict[str, str]:
        """The environment of its process: of URLs and addresses only its own."""
        return self._running(service, replica).environment(self._addresses())

    def auditor_urls(self) -> dict[str, str]:
        """Owner ("order", "inventory", "payment", "customer", "notification", "provider") -> read-only URL."""
        return dict(self.engines.databases.auditors)

    def memory(self) -> dict[str, int]:
        """Proportional set size of each process, with its children, in bytes; replicas as `order_svc-2`."""
        return memory(self._home.folder)

    async def start_service(self, service: str, replica: int = 1) -> str:
        """Start a service or one more replica of it, wait until it serves, and return its address."""
        made = self._service(service, replica)
        if made.process.running:
            raise EngineError(made.name, "runs already", "choose another replica number")
        await self._launch(made)
        self._home.facts["stack"] = self._facts()
        self._home.record()
        return made.address

    async def stop_service(self, service: str, replica: int = 1) -> None:
        """SIGTERM, and wait for its drain. It isn't started again until `restart_service`."""
        await self._running(service, replica).stop()

    async def kill_service(self, service: str, number: int = signal.SIGKILL, *, replica: int = 1) -> None:
        """Signal a service. A deadly signal keeps it down until `restart_service`; SIGKILL's end is waited for."""
        await self._running(service, replica).kill(number)

    async def restart_service(self, service: str, replica: int = 1) -> None:
        """Start it again on its address, after stopping it if it still runs, and wait until it serves."""
        running = self._running(service, replica)
        self._leave_alone(running.name)
        await running.stop()
        await self._launch(running)

    async def kill_engine(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal an engine, with all its processes for SIGKILL, SIGSTOP and SIGCONT. A deadly signal keeps it down."""
        await self.engines.kill(name, number)

    async def restart_engine(self, name: str) -> None:
        """Start it again on its port and data, after stopping it if it still runs."""
        engine = self.engines[name]
        self._leave_alone(name)
        await engine.restart()
        self._supervise(name, engine.process, engine.restart)

    async def _make_streams(self) -> None:
        from chassis.messaging.nats import Nats, ensure_topology

        async def until_connected(nats: Nats) -> None:
            deadline = time.monotonic() + BROKER_PATIENCE
            while not nats.connected and time.monotonic() < deadline:  # noqa: ASYNC110  # it tells nobody when
                await asyncio.sleep(0.05)

        nats = Nats(self.engines.nats_url, "devstack")
        await nats.open()
        try:
            await until_connected(nats)
            await ensure_topology(nats)
        except Exception as error:
            cause = f"streams and consumers can't be made: {reason(error)}"
            raise EngineError("NATS", cause, f"read {self._home.log('nats')}") from error
        finally:
            await nats.close()

    async def _migrate(self, service: ServiceProcess, turn: asyncio.Semaphore) -> None:
        async with turn:
            await service.migrate(self._addresses())

    async def _launch(self, service: ServiceProcess) -> None:
        await service.launch(self._addresses())
        await service.wait_until_serving()
        self._home.progress(f"{service.name} serves")
        self._supervise(service.name, service.process, lambda: service.launch(self._addresses()))

    def _service(self, name: str, replica: int = 1) -> ServiceProcess:
        if name not in ALL_SERVICES:
            raise EngineError("stack", f"no such service: {name}", "name one of ALL_SERVICES")
        if (name, replica) not in self._services:
            self._services[name, replica] = ServiceProcess(name, self.engines, replica)
        return self._services[name, replica]

    def _running(self, name: str, replica: int) -> ServiceProcess:
        if (name, replica) not in self._services:
            raise EngineError(name, f"replica {replica} was never started", "start it with start_service")
        return self._services[name, replica]

    def _addresses(self) -> dict[str, str]:
        return {name: service.address for (name, replica), service in self._services.items() if replica == 1}

    def _supervise(self, name: str, process: Process, again: Callable[[], Awaitable[None]]) -> None:
        self._leave_alone(name)
        self._supervisors[name] = asyncio.create_task(self._watch(name, process, again), name=f"supervise {name}")

    def _leave_alone(self, name: str) -> None:
        if (task := self._supervisors.pop(name, None)) is not None:
            task.cancel()

    async def _watch(self, name: str, process: Process, again: Callable[[], Awaitable[None]]) -> None:
        """Start a process again when it ends unasked, at growing intervals while it doesn't stay up."""
        pause, longest = RESTART_PAUSE
        while True:
            began = time.monotonic()
            code = await process.wait()
            if process.stopping:
                return
            self._home.progress(f"{name} ended with code {code}: {process.last_lines(1)}")
            if not self._restart:
                return
            if time.monotonic() - began > STABLE_AFTER:
                pause = RESTART_PAUSE[0]
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            if process.stopping or process.running:
                return
            try:
                await again()
            except EngineError as error:
                self._home.progress(str(error))

    def _facts(self) -> dict[str, object]:
        started = [service for (_, replica), service in self._services.items() if replica == 1]
        shown = [service for service in started if service.service in self._names or service.process.running]
        engines = self.engines
        return {
            "services": {service.service: service.address for service in shown},
            "metrics": {service.service: service.metrics_address for service in shown},
            "nats_url": engines.nats_url,
            "mongodb_url": engines.mongodb_url,
            "elasticsearch_url": engines.elasticsearch_url,
            "search_settings": engines.search_settings,
            "smtp_address": engines.smtp_address,
            "mailbox": str(engines.mailbox),
            "auditors": engines.databases.auditors,
        }
