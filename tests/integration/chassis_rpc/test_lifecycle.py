"""Starting, readiness, draining and stopping."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.request import urlopen

import asyncpg
import grpc
import psutil
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from structlog.testing import capture_logs

from chassis.config import ServiceConfig
from chassis.errors import Unavailable
from chassis.postgres import Postgres
from chassis.rpc.server import LIVENESS
from chassis.service import CannotListen, Check, start
from tests.conftest import Engine, until
from tests.integration.chassis_rpc.echo import NAME, Echo, running, service, text


class Part:
    """A resource and a worker that write down what becomes of them."""

    def __init__(self, name: str, story: list[str], *, failures: int = 0, ends_early: int = 0, stuck: bool = False):
        self.name = name
        self._story = story
        self._failures = failures
        self._ends_early = ends_early
        self._stuck = stuck
        self._stopped = asyncio.Event()

    async def open(self) -> None:
        if self._failures:
            self._failures -= 1
            raise Unavailable("not yet")
        self._story.append(f"{self.name} opened")

    async def close(self) -> None:
        self._story.append(f"{self.name} closed")

    async def run(self) -> None:
        self._story.append(f"{self.name} runs")
        if self._failures:
            self._failures -= 1
            raise RuntimeError("worker broke")
        if self._ends_early:
            self._ends_early -= 1
            return
        await (asyncio.Event() if self._stuck else self._stopped).wait()
        await asyncio.sleep(0)
        self._story.append(f"{self.name} finished")

    async def stop(self) -> None:
        self._story.append(f"{self.name} told to stop")
        self._stopped.set()


async def test_parts_open_in_order_and_close_in_reverse_the_first_worker_last() -> None:
    story: list[str] = []
    resources = [Part("db", story), Part("broker", story)]
    workers = [Part("relay", story), Part("subscription", story)]
    async with running(resources=resources, workers=workers):
        await until(lambda: "subscription runs" in story)
    assert story == [
        *("db opened", "broker opened", "relay runs", "subscription runs"),
        *("subscription told to stop", "subscription finished", "relay told to stop", "relay finished"),
        *("broker closed", "db closed"),
    ]


async def test_an_engine_that_is_away_is_waited_for() -> None:
    story: list[str] = []
    with capture_logs() as lines:
        async with running(resources=[Part("db", story, failures=3)]):
            assert story == ["db opened"]
    assert len([line for line in lines if line["event"] == "waiting"]) == 1


async def test_a_worker_that_ends_is_told_of_and_started_again() -> None:
    story: list[str] = []
    workers = [Part("relay", story, failures=2), Part("subscription", story, ends_early=1)]
    with capture_logs() as lines:
        async with running(workers=workers):
            await until(lambda: story.count("relay runs") == 3 and story.count("subscription runs") == 2)
    ends = [line["worker"] for line in lines if line["event"] == "worker ended"]
    assert sorted(ends) == ["relay", "relay", "subscription"]


async def test_nothing_is_served_before_the_schema_is_there() -> None:
    migrated = False

    async def schema() -> None:
        if not migrated:
            raise Unavailable("run migrate")

    story: list[str] = []
    async with running(wait=False, schema=schema, workers=[Part("relay", story)]) as stage:
        assert await stage.health() == await stage.health(NAME) == "NOT_SERVING"
        assert await stage.health(LIVENESS) == "SERVING"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.stub.unary(text("x"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert story == []
        migrated = True
        await stage.running.ready(5)
        assert await stage.health() == await stage.health(NAME) == "SERVING"
        assert await stage.stub.unary(text("x"), timeout=5) == text("x")


async def test_health_follows_the_checks() -> None:
    fault: Exception | None = OSError("refused")

    async def probe() -> None:
        if fault:
            raise fault

    with capture_logs() as lines:
        async with running(wait=False, ready=[Check("store", probe)]) as stage:
            assert await stage.not_serving()
            fault = None
            await stage.running.ready(5)
            assert await stage.serving()
            fault = OSError("gone")
            await until(stage.not_serving, 5)
            assert await stage.health(LIVENESS) == "SERVING"
            assert await stage.stub.unary(text("x"), timeout=5) == text("x")
            fault = None
            await until(stage.serving, 5)
    told = [line["event"] for line in lines if line["event"] in ("ready", "not ready")]
    assert told == ["not ready", "ready", "not ready", "ready"]


async def test_a_frozen_postgresql_is_noticed_within_ten_seconds_and_so_is_its_return(postgres: Engine) -> None:
    admin = await asyncpg.connect(postgres.url)
    data = Path(await admin.fetchval("SHOW data_directory"))
    await admin.close()
    server = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
    db = Postgres(postgres.url)
    async with running(resources=[db], ready=[Check("postgresql", db.ready)]) as stage:
        frozen = [server, *server.children(recursive=True)]
        for process in frozen:
            process.suspend()
        try:
            await until(stage.not_serving, 10)
        finally:
            for process in frozen:
                process.resume()
        await until(stage.serving, 10)


async def test_a_call_in_hand_is_finished_and_no_other_is_taken() -> None:
    async with running() as stage:
        call = asyncio.ensure_future(stage.stub.unary(text("hold"), timeout=20))
        await asyncio.wait_for(stage.echo.held.wait(), 5)
        stopping = asyncio.create_task(stage.running.drain_and_stop())

        async def refused() -> bool:
            async with grpc.aio.insecure_channel(stage.running.address) as channel:
                try:
                    await HealthStub(channel).Check(HealthCheckRequest(), timeout=1)
                except grpc.aio.AioRpcError as error:
                    return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        await until(refused, 5)
        assert not call.done()
        stage.echo.release.set()
        assert (await call).value == "hold"
        await stopping


async def test_draining_ends_watches_so_that_their_callers_go_elsewhere() -> None:
    async with running() as stage:
        watch = stage.stub.watch(text("hold"))
        assert await watch.read() == text("first")
        health = HealthStub(stage.channel).Watch(HealthCheckRequest())
        await health.read()
        await asyncio.wait_for(stage.echo.held.wait(), 5)
        await asyncio.wait_for(stage.running.drain_and_stop(), 2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in (caught.value.details() or "")
        health.cancel()


async def test_draining_ends_even_if_a_call_and_a_worker_dont() -> None:
    story: list[str] = []
    config = ServiceConfig(drain_seconds=0.2)
    workers = [Part("relay", story), Part("subscription", story, stuck=True)]
    async with running(config=config, workers=workers) as stage:
        call = asyncio.ensure_future(stage.stub.unary(text("hold"), timeout=20))
        await asyncio.wait_for(stage.echo.held.wait(), 5)
        await asyncio.wait_for(stage.running.drain_and_stop(), 5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    assert "relay finished" in story
    assert "subscription finished" not in story


async def test_metrics_tell_rates_errors_and_durations() -> None:
    config = ServiceConfig(metrics_address="127.0.0.1:0")
    async with running(config=config) as stage:
        await stage.stub.unary(text("x"), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await stage.stub.unary(text("missing"), timeout=5)
        metrics = stage.running.service.metrics
        metrics.message("polymart.order.v1.OrderPlaced", "handled", 0.01, 3)
        metrics.outbox(7, 1.5)
        metrics.lag("order_svc-CMD", 4)
        metrics.dead_letter("order_svc-CMD", "polymart.order.v1.OrderPlaced")
        url = f"http://{stage.running.metrics_address}/metrics"
        page = await asyncio.to_thread(lambda: urlopen(url, timeout=5).read().decode())
    for line in (
        f'polymart_rpc_seconds_count{{code="OK",method="{NAME}/Unary"}} 1.0',
        f'polymart_rpc_seconds_count{{code="NOT_FOUND",method="{NAME}/Unary"}} 1.0',
        'polymart_message_seconds_count{outcome="handled",type="polymart.order.v1.OrderPlaced"} 3.0',
        "polymart_outbox_entries 7.0",
        "polymart_outbox_oldest_seconds 1.5",
        'polymart_consumer_lag{consumer="order_svc-CMD"} 4.0',
        'polymart_dead_letters_total{consumer="order_svc-CMD",type="polymart.order.v1.OrderPlaced"} 1.0',
        'target_info{service_name="echo_svc"} 1.0',
    ):
        assert line in page.splitlines()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(urlopen, url, timeout=5)


async def test_a_taken_address_is_named() -> None:
    config = ServiceConfig(metrics_address="127.0.0.1:0")
    async with running(config=config) as stage:
        for name, address in (("grpc", stage.running.address), ("metrics", stage.running.metrics_address)):
            taken = ServiceConfig().model_copy(update={f"{name}_address": address})
            with pytest.raises(CannotListen, match=rf"POLYMART_{name.upper()}_ADDRESS {address} .*in use"):
                await start(service(Echo(), config=taken))


PROGRAM = """
import asyncio, os, sys
from chassis.config import PostgresUrl, ServiceConfig
from chassis.errors import Unavailable
from chassis.metrics import Metrics
from chassis.service import Service, main

class Config(ServiceConfig):
    postgres_url: PostgresUrl
    mark: str = ""

async def migrate(config):
    if "nowhere" in config.postgres_url:
        raise Unavailable("PostgreSQL can't be reached")
    if "later" in config.postgres_url and not os.path.exists(config.mark):
        raise Unavailable("PostgreSQL can't be reached yet")
    print("migrated")

class Endless:
    name = "endless"
    async def run(self): await asyncio.Event().wait()
    async def stop(self): pass

def build(config):
    asyncio.get_running_loop()
    return Service(name="tiny_svc", config=config, metrics=Metrics("tiny_svc"), workers=[Endless()] * bool(config.mark))

main("tiny_svc", Config, build=build, migrate=migrate)
"""

Program = Callable[..., "asyncio.Future[asyncio.subprocess.Process]"]


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    processes: list[asyncio.subprocess.Process] = []

    async def begin(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYMART_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *arguments),
            env={**kept, "PYTHONPATH": os.pathsep.join(sys.path), **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield begin  # type: ignore[misc]
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


URL = "postgresql://localhost/shop"


async def test_bad_settings_and_arguments_end_with_one_clear_line_each(program: Program) -> None:
    async with running() as stage:
        cases: list[tuple[list[str], dict[str, str], int, str]] = [
            ([], {"POLYMART_LOG_LEVEL": "LOUD"}, 2, "tiny_svc: POLYMART_(LOG_LEVEL|POSTGRES_URL): .*\n" * 2),
            (["frobnicate"], {"POLYMART_POSTGRES_URL": URL}, 2, r"usage: python -m tiny_svc \[migrate \[--wait\]\]\n"),
            (
                [],
                {"POLYMART_POSTGRES_URL": URL, "POLYMART_GRPC_ADDRESS": stage.running.address},
                2,
                f"tiny_svc: POLYMART_GRPC_ADDRESS {stage.running.address} .*: Address already in use\n",
            ),
            (["migrate"], {"POLYMART_POSTGRES_URL": "postgresql://nowhere/x"}, 1, "tiny_svc: migration failed: .*\n"),
        ]
        processes = [await program(*arguments, **settings) for arguments, settings, _, _ in cases]
        for process, (_, _, code, expected) in zip(processes, cases, strict=True):
            _, err = await asyncio.wait_for(process.communicate(), 20)
            assert re.fullmatch(expected, err.decode()), err.decode()
            assert process.returncode == code


async def test_migrate_migrates_and_sigterm_drains(program: Program) -> None:
    migrating = await program("migrate", POLYMART_POSTGRES_URL=URL)
    serving = await program(POLYMART_POSTGRES_URL=URL)
    out, _ = await asyncio.wait_for(migrating.communicate(), 20)
    assert (migrating.returncode, out) == (0, b"migrated\n")
    assert serving.stderr is not None
    line = await asyncio.wait_for(serving.stderr.readline(), 20)
    assert b'"event": "ready"' in line
    assert b'"service": "tiny_svc"' in line
    serving.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(serving.communicate(), 20)
    assert serving.returncode == 0, err
    assert b'"event": "stopped"' in err


async def test_a_second_signal_ends_it_at_once(program: Program) -> None:
    serving = await program(POLYMART_POSTGRES_URL=URL, POLYMART_MARK="endless", POLYMART_DRAIN_SECONDS="600")
    assert serving.stderr is not None
    for awaited in (b'"event": "ready"', b'"event": "draining"'):
        assert awaited in await asyncio.wait_for(serving.stderr.readline(), 20)
        serving.send_signal(signal.SIGTERM)
    # An exit code, and not the signal: process 1 of a container doesn't die of one.
    assert await asyncio.wait_for(serving.wait(), 20) == 128 + signal.SIGTERM


async def test_what_does_not_close_is_left_behind_and_the_rest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chassis.service._LONGEST_CLOSE", 0.1)
    story: list[str] = []

    class Frozen(Part):
        async def close(self) -> None:
            await asyncio.Event().wait()

    with capture_logs() as logs:
        async with running(resources=[Part("db", story), Frozen("engine", story)]):
            pass
    assert story == ["db opened", "engine opened", "db closed"]
    assert {"resource": "Frozen", "seconds": 0.1}.items() <= next(
        entry for entry in logs if entry["event"] == "closing took too long"
    ).items()


async def test_a_migration_that_may_wait_waits_for_its_store(program: Program, tmp_path: Path) -> None:
    mark = tmp_path / "there"
    settings = {"POLYMART_POSTGRES_URL": "postgresql://later/x", "POLYMART_MARK": str(mark)}
    migrating = await program("migrate", "--wait", **settings)
    assert migrating.stderr is not None
    assert b"PostgreSQL can't be reached yet" in await asyncio.wait_for(migrating.stderr.readline(), 20)
    mark.touch()
    out, err = await asyncio.wait_for(migrating.communicate(), 20)
    assert (migrating.returncode, out) == (0, b"migrated\n"), err
