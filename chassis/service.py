"""The life of a service: open what it stands on, wait for its schema, serve, say honestly whether it is ready, drain.

On SIGTERM or SIGINT health turns NOT_SERVING, no more messages are taken, what is in hand is finished, the outbox is
given a last chance, and everything is closed in reverse.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, Protocol, TypeVar

import structlog

from chassis.clock import rest
from chassis.config import ConfigError, ServiceConfig, load, split_address
from chassis.errors import Unavailable
from chassis.metrics import Metrics
from chassis.process import end_at_once
from chassis.rpc.server import MAX_REQUEST_BYTES, CannotListen, RpcServer, Servicer
from chassis.telemetry import configure_logging, configure_tracing

__all__ = [
    "CannotListen", "Check", "Resource", "RunningService", "Service", "Servicer", "Worker", "main", "run", "start",
]  # fmt: skip

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=ServiceConfig)

_READY_INTERVAL = 1.0
_READY_TIMEOUT = 3.0
_RETRY = 0.25
_LONGEST_RETRY = 2.0
_HEALTHY_RUN = 60.0
_LAST_FLUSH = 6.0
_LONGEST_CLOSE = 3.0
# Seconds that a stop may take beyond `drain_seconds`: the relay's last flush, then closing everything.
STOP_MARGIN = 25.0
_EXIT_FAILED = 1
_EXIT_USAGE = 2


class Resource(Protocol):
    """Something a service stands on. `open` may raise Unavailable: it is tried again."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...


class Worker(Protocol):
    """Something that runs beside the RPCs.

    After `stop` it takes nothing more, finishes what is in hand, and `run` returns. A `run` that ends before that,
    by raising or not, is started again.
    """

    @property
    def name(self) -> str: ...
    async def run(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Check:
    """A condition of readiness: `probe` raises when it isn't met, and has 3 seconds to say so."""

    name: str
    probe: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Service:
    """A service's parts.

    Resources are opened in their order and closed in reverse. The first worker outlives RPCs and the other workers:
    a relay, which publishes what they left. `schema` raises while the store isn't prepared for this release.
    """

    name: str
    config: ServiceConfig
    metrics: Metrics
    servicers: Sequence[Servicer] = ()
    resources: Sequence[Resource] = ()
    ready: Sequence[Check] = ()
    workers: Sequence[Worker] = ()
    schema: Callable[[], Awaitable[None]] | None = None
    max_request_bytes: int = MAX_REQUEST_BYTES


class RunningService:
    """A started service. `address` is where it listens, `metrics_address` where its metrics are, if anywhere."""

    def __init__(self, service: Service):
        self.service = service
        self.address = ""
        self.metrics_address = ""
        self._log = log.bind(service=service.name)
        self._tracing = configure_tracing(service.name, service.config.otlp_endpoint)
        self._server = RpcServer(
            service.name,
            service.servicers,
            tracing=self._tracing,
            metrics=service.metrics,
            max_request_bytes=service.max_request_bytes,
        )
        self._opened: list[Resource] = []
        self._serving: asyncio.Task[None] | None = None
        self._workers: list[tuple[Worker, asyncio.Task[None]]] = []
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._is_ready = asyncio.Event()

    async def begin(self) -> None:
        """Listen and open the resources; the rest follows by itself, as soon as it can."""
        self._tracing.use()
        try:
            # At once, so that a taken port is known at once.
            self._serve_metrics()
            self.address = await self._server.start(self.service.config.grpc_address)
            for resource in self.service.resources:
                await until_available(resource.open, f"{type(resource).__name__} to open", self._log)
                self._opened.append(resource)
        except BaseException:
            await self._close()
            raise
        self._serving = asyncio.create_task(self._serve(), name=f"{self.service.name} serve")

    def _serve_metrics(self) -> None:
        address = self.service.config.metrics_address
        if not address:
            return
        host, port = split_address(address)
        try:
            bound = self.service.metrics.serve(host, port)
        except OSError as error:
            reason = f"POLYMART_METRICS_ADDRESS {address} can't be listened on: {error.strerror}"
            raise CannotListen(reason) from error
        self.metrics_address = f"{address.rpartition(':')[0]}:{bound}"

    async def _serve(self) -> None:
        if self.service.schema is not None:
            # Whatever is wrong with the database may be mended while this waits: a role or a grant that is missing.
            await until_available(self.service.schema, "schema", self._log, Exception)
        for worker in self.service.workers:
            task = asyncio.create_task(self._keep_running(worker), name=f"{self.service.name} {worker.name}")
            self._workers.append((worker, task))
        self._server.accept()
        await self._watch_readiness()

    async def _keep_running(self, worker: Worker) -> None:
        delay = 0.1
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            try:
                await worker.run()
                error = None
            except Exception as raised:
                error = raised
            if self._stopping.is_set() and error is None:
                return
            self._log.error("worker ended", worker=worker.name, exc_info=error)
            if asyncio.get_running_loop().time() - began > _HEALTHY_RUN:
                delay = 0.1
            await rest(self._stopping, delay)
            delay = min(delay * 2, _LONGEST_RETRY)

    async def _watch_readiness(self) -> None:
        known: set[str] | None = None
        while not self._stopping.is_set():
            found = await asyncio.gather(*map(self._problem, self.service.ready))
            problems = {check.name: text for check, text in zip(self.service.ready, found, strict=True) if text}
            if self._stopping.is_set():
                return
            if problems.keys() != known:
                await self._server.set_serving(not problems)
                if problems:
                    self._is_ready.clear()
                    self._log.warning("not ready", **problems)
                else:
                    self._is_ready.set()
                    self._log.info("ready", address=self.address)
            known = set(problems)
            await rest(self._stopping, _READY_INTERVAL)

    async def _problem(self, check: Check) -> str | None:
        # A probe of an engine that froze may take long to be cancelled: nobody waits for that, and there is one
        # of it at a time.
        probe = self._probes.get(check.name)
        if probe is None:
            probe = self._probes[check.name] = asyncio.create_task(_run_probe(check.probe))
        await asyncio.wait({probe}, timeout=_READY_TIMEOUT)
        if not probe.done():
            probe.cancel()
            return f"no answer in {_READY_TIMEOUT:g} s"
        del self._probes[check.name]
        if probe.cancelled():
            return "no answer"
        error = probe.exception()
        return (str(error) or type(error).__name__) if error else None

    async def ready(self, timeout: float = 30) -> None:
        """Wait until it serves. Raises TimeoutError."""
        await asyncio.wait_for(self._is_ready.wait(), timeout)

    async def drain_and_stop(self) -> None:
        """Stop as on SIGTERM, within the drain time and a few seconds."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._is_ready.clear()
        await self._server.set_serving(False)
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        grace = self.service.config.drain_seconds
        end = asyncio.get_running_loop().time() + grace
        first, others = self._workers[:1], self._workers[1:]
        in_hand = asyncio.gather(self._server.stop(grace), *(_finish(*worker) for worker in others))
        await self._within(grace + 0.5, in_hand)
        left = max(end - asyncio.get_running_loop().time(), _LAST_FLUSH)
        await self._within(left, asyncio.gather(*(_finish(*worker) for worker in first)))
        await self._close()
        self._log.info("stopped")

    async def _within(self, seconds: float, step: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await step
        except TimeoutError:
            self._log.warning("drain took too long", seconds=seconds)

    async def _close(self) -> None:
        await self._server.stop(0)
        left = {task for _, task in self._workers} | set(self._probes.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_READY_TIMEOUT)
        for resource in reversed(self._opened):
            await self._close_resource(resource)
        await asyncio.to_thread(self.service.metrics.close)
        await asyncio.to_thread(self._tracing.shutdown)

    async def _close_resource(self, resource: Resource) -> None:
        # A task of its own: what swallows its cancellation, or waits for a peer that froze, is left behind.
        closing = asyncio.ensure_future(resource.close())
        await asyncio.wait({closing}, timeout=_LONGEST_CLOSE)
        name = type(resource).__name__
        if not closing.done():
            closing.cancel()
            self._log.warning("closing took too long", resource=name, seconds=_LONGEST_CLOSE)
        elif not closing.cancelled() and (error := closing.exception()) is not None:
            self._log.warning("closing failed", resource=name, exc_info=error)


async def until_available(
    step: Callable[[], Awaitable[None]],
    what: str,
    logger: structlog.typing.FilteringBoundLogger,
    expected: type[Exception] = Unavailable,
) -> None:
    """Repeat `step` for as long as it raises `expected`, and log what is waited for."""
    delay, known = _RETRY, ""
    while True:
        try:
            return await step()
        except expected as error:
            text = str(error) or type(error).__name__
        if text != known:
            logger.warning("waiting", what=what, error=text)
            known = text
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, _LONGEST_RETRY)


async def _run_probe(probe: Callable[[], Awaitable[None]]) -> None:
    await probe()


async def _finish(worker: Worker, task: asyncio.Task[None]) -> None:
    await worker.stop()
    await asyncio.wait({task})


async def start(service: Service) -> RunningService:
    """Start a service in this process; `ready()` of the result waits until it serves.

    Resources that can't be opened because an engine is away are waited for. Raises CannotListen if an address is
    taken.
    """
    running = RunningService(service)
    # A task of its own, so that the service's tracer stays in its context.
    await asyncio.create_task(running.begin())
    return running


async def run(service: Service) -> None:
    """Start the service and run it until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()

    def on_signal() -> None:
        told_to_stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, end_at_once)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(start(service))
    waiting = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return
    running = await starting
    await waiting
    log.info("draining", service=service.name)
    await running.drain_and_stop()


def main(
    name: str,
    config_type: type[C],
    *,
    build: Callable[[C], Service] | None = None,
    migrate: Callable[[C], Awaitable[None]] | None = None,
) -> NoReturn:
    """`python -m <name>` serves, `python -m <name> migrate` prepares the store; with `--wait` it waits for one that
    can't be reached. What has nothing to serve has no `build`.

    Exits with 2 for what the caller must mend (arguments, settings, a taken address), with 1 for a failure.
    """
    import uvloop

    async def serve() -> None:
        assert build is not None
        await run(build(config))

    async def prepare() -> None:
        if migrate is not None:
            step = partial(migrate, config)
            await (until_available(step, "the store", log) if "--wait" in arguments else step())
        log.info("migrated", service=name)

    arguments = sys.argv[1:]
    if arguments not in (*([[]] if build else []), ["migrate"], ["migrate", "--wait"]):
        usage = "[migrate [--wait]]" if build else "migrate [--wait]"
        _leave(_EXIT_USAGE, f"usage: python -m {name} {usage}")
    try:
        config = load(config_type)
    except ConfigError as error:
        _leave(_EXIT_USAGE, *(f"{name}: {problem}" for problem in error.problems))
    configure_logging(config.log_level, name)
    try:
        uvloop.run(prepare() if arguments else serve())
    except ConfigError as error:  # of a file that a setting names
        _leave(_EXIT_USAGE, *(f"{name}: {problem}" for problem in error.problems))
    except CannotListen as error:
        _leave(_EXIT_USAGE, f"{name}: {error}")
    except Exception as error:
        log.debug("failed", exc_info=error)
        what = "migration failed" if arguments else "failed"
        _leave(_EXIT_FAILED, f"{name}: {what}: {type(error).__name__}: {error}")
    sys.exit(0)


def _leave(code: int, *lines: str) -> NoReturn:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.exit(code)
