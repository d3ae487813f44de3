"""Who holds a data folder, what happens when he dies, and that strangers' processes are never touched."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from devstack.engines import start_engines
from devstack.errors import EngineError
from devstack.home import identities, python_environment, read_state
from devstack.info import load, refuse_if_running, stop_running
from devstack.postgres import SHARED
from devstack.process import Identity

HOLD = """
import asyncio, sys
from pathlib import Path
from devstack.engines import start_engines

async def hold():
    async with start_engines(Path(sys.argv[1]), set(sys.argv[2:])) as engines:
        print("started", flush=True)
        if "postgres" in engines.by_name:
            import asyncpg
            connection = await asyncpg.connect(engines.databases["order"])
            print(await connection.fetchval("SELECT current_user"), flush=True)
            await connection.close()
        else:
            await asyncio.Event().wait()

asyncio.run(hold())
"""


def holder(folder: Path, environ: dict[str, str], *names: str) -> subprocess.Popen[str]:
    """Another process that holds engines in the folder until it is stopped."""
    command = [sys.executable, "-c", HOLD, str(folder), *names]
    process = subprocess.Popen(command, env=python_environment(environ), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        await asyncio.sleep(0.02)


def recorded(folder: Path) -> list[Identity]:
    return [identity for identity, _, _ in identities(read_state(folder)).values()]


async def test_a_second_stack_in_the_same_folder_is_refused(folder: Path, plain: dict[str, str]) -> None:
    async with start_engines(folder, {"nats"}, environ=plain) as engines:
        with pytest.raises(EngineError, match=f"a stack already runs here, started by process {os.getpid()}; stop it"):
            async with start_engines(folder, {"nats"}, environ=plain):
                pass
        with pytest.raises(EngineError, match="already runs"):
            refuse_if_running(folder)
        assert engines["nats"].process.running
        assert [identity.pid for identity in recorded(folder)] == [engines["nats"].process.identity.pid]
    refuse_if_running(folder)
    with pytest.raises(EngineError, match=r"none runs in .*; start one with `polymart up`"):
        load(folder)


async def test_what_a_killed_supervisor_leaves_is_stopped(folder: Path, plain: dict[str, str]) -> None:
    process = holder(folder, plain, "nats", "elasticsearch")
    left = recorded(folder)
    assert len(left) == 2
    process.kill()
    process.wait()
    await until(lambda: not any(identity.alive for identity in left) and not (folder / "stack.json").exists())


async def test_without_a_watchdog_the_next_start_stops_it(folder: Path, plain: dict[str, str]) -> None:
    process = holder(folder, plain, "nats", "elasticsearch")
    left = recorded(folder)
    watchdogs = [pid for pid in Identity.of(process.pid).family() if pid not in {i.pid for i in left} | {process.pid}]
    for pid in (*watchdogs, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert all(identity.alive for identity in left)
    async with start_engines(folder, {"nats"}, environ=plain) as engines:
        assert not any(identity.alive for identity in left)
        assert engines["nats"].process.running


async def test_another_process_can_stop_it(folder: Path, plain: dict[str, str]) -> None:
    assert not await stop_running(folder)
    process = holder(folder, plain, "nats")
    left = recorded(folder)
    # The supervisor is this process's child, so somebody has to reap it.
    stopping = asyncio.create_task(stop_running(folder))
    await until(lambda: process.poll() is not None)
    assert await stopping
    await until(lambda: not any(identity.alive for identity in left))
    assert not await stop_running(folder)


async def test_a_process_that_got_a_recorded_pid_is_left_alone(folder: Path, plain: dict[str, str]) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        identity = Identity.of(stranger.pid)
        assert identity is not None
        entry = {"pid": stranger.pid, "started": identity.started - 1, "stop_signal": signal.SIGKILL, "patience": 1}
        state = {"supervisor": {"pid": stranger.pid, "started": 1}, "processes": {"nats": entry}}
        (folder / "stack.json").write_text(json.dumps(state))
        assert not await stop_running(folder)
        (folder / "stack.json").write_text(json.dumps(state))
        async with start_engines(folder, {"nats"}, environ=plain):
            pass
        assert stranger.returncode is None
        assert identity.alive
    finally:
        stranger.kill()
        await stranger.wait()


def test_an_ordinary_user_gets_a_postgresql_too(folder: Path, plain: dict[str, str]) -> None:
    command = [sys.executable, "-c", HOLD, str(folder / "home"), "postgres"]
    if os.geteuid() == 0:
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *command]
        if subprocess.run([*command[:5], "true"], check=False, capture_output=True).returncode:
            pytest.skip("root can't become somebody else here")
    done = subprocess.run(
        command, env=python_environment(plain), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "started\npolymart_order\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs it")
async def test_root_without_user_namespaces_gets_one_that_runs_as_nobody(folder: Path, plain: dict[str, str]) -> None:
    place = SHARED / sha256(os.fsencode(folder / "postgres")).hexdigest()[:16]
    told: list[str] = []
    try:
        environ = {**plain, "PATH": str(folder)}
        async with start_engines(folder, {"postgres"}, environ=environ, on_progress=told.append) as engines:
            identity = engines["postgres"].process.identity
            assert identity is not None
            assert Path(f"/proc/{identity.pid}").stat().st_uid != 0
        assert f"PostgreSQL: runs as nobody, with its data in {place}" in told
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may have theirs there
            SHARED.rmdir()
