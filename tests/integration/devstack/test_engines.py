"""Engines out of wheels: durable, on ports of their own, in any folder, told of trouble in one line."""

import asyncio
import os
import shlex
import signal
import socket
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.js.api import StreamConfig
from pymongo import AsyncMongoClient

from devstack.databases import ensure_databases
from devstack.engines import Engines, start_engines
from devstack.errors import EngineError
from devstack.home import Home
from devstack.nats import NatsServer
from devstack.ports import HOST


def occupy(port: int) -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind((HOST, port))
    taken.listen()
    return taken


async def write(engines: Engines) -> None:
    connection = await asyncpg.connect(engines.databases["order"])
    await connection.execute("CREATE TABLE kept (what text)")
    await connection.execute("INSERT INTO kept VALUES ('row')")
    await connection.close()
    client = await nats.connect(engines.nats_url)
    await client.jetstream().add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
    await client.jetstream().publish("kept", b"message")
    await client.close()
    async with AsyncMongoClient[dict[str, object]](engines.mongodb_url) as mongo:
        await mongo.kept.kept.insert_one({"what": "document"})


async def read(engines: Engines) -> tuple[object, object, object]:
    connection = await asyncpg.connect(engines.databases["order"])
    row = await connection.fetchval("SELECT what FROM kept")
    await connection.close()
    client = await nats.connect(engines.nats_url)
    message = await client.jetstream().get_msg("KEPT", seq=1)
    await client.close()
    async with AsyncMongoClient[dict[str, object]](engines.mongodb_url) as mongo:
        document = await mongo.kept.kept.find_one()
    return row, message.data, document and document["what"]


async def test_data_and_ports_survive_kill_9_and_a_restart(folder: Path, plain: dict[str, str]) -> None:
    wanted = {"postgres", "nats", "mongodb"}
    async with start_engines(folder, wanted, environ=plain) as engines:
        await write(engines)
        ports = {name: engines[name].port for name in wanted}
        for name in wanted:
            await engines.kill(name)
            assert not engines[name].process.running
        await engines.restart("postgres")
    async with start_engines(folder, wanted, environ=plain) as engines:
        assert {name: engines[name].port for name in wanted} == ports
        assert await read(engines) == ("row", b"message", "document")


async def test_one_that_ends_for_what_passes_is_started_again(folder: Path, plain: dict[str, str]) -> None:
    class Hesitant(NatsServer):
        passing = ("a moment please",)

        def command(self) -> list[str]:
            tried, server = shlex.quote(str(folder / "tried")), shlex.join(map(str, super().command()))
            return ["sh", "-c", f"test -e {tried} || {{ touch {tried}; echo a moment please; exit 1; }}; exec {server}"]

    home = Home(folder, environ=plain)
    await home.open()
    engine = Hesitant(home)
    try:
        await engine.start()
        assert (folder / "tried").exists()
        assert engine.process.running
    finally:
        await engine.stop()
        await home.close()


async def test_a_port_that_somebody_took_is_left_to_him(folder: Path, plain: dict[str, str]) -> None:
    async with start_engines(folder, {"nats"}, environ=plain) as engines:
        first = engines["nats"].port
    told: list[str] = []
    with occupy(first):
        async with start_engines(folder, {"nats"}, environ=plain, on_progress=told.append) as engines:
            moved = engines["nats"].port
            assert moved != first
    assert f"NATS: port {first} is taken, moving to {moved}" in told
    async with start_engines(folder, {"nats"}, environ=plain) as engines:
        assert engines["nats"].port == moved


async def test_a_restart_stays_on_its_port_or_says_that_it_cannot(folder: Path, plain: dict[str, str]) -> None:
    async with start_engines(folder, {"nats"}, environ=plain) as engines:
        await engines.kill("nats")
        with occupy(engines["nats"].port), pytest.raises(EngineError) as refused:
            await engines.restart("nats")
        assert str(refused.value).startswith(f"NATS: port {engines['nats'].port} is taken by another process; ")
        await engines.restart("nats")


async def test_ctrl_c_in_the_terminal_reaches_no_engine(engines: Engines) -> None:
    for engine in engines.by_name.values():
        assert engine.process.identity is not None
        assert os.getsid(engine.process.identity.pid) != os.getsid(0)


async def test_a_stopped_postgresql_answers_on_no_connection(engines: Engines) -> None:
    connection = await asyncpg.connect(engines.postgres_admin_url)
    try:
        await engines.kill("postgres", signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncpg.connect(engines.postgres_admin_url, timeout=0.3)
        asked = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        await engines.kill("postgres", signal.SIGCONT)
        assert await asyncio.wait_for(asked, 5) == 1
    finally:
        await engines.kill("postgres", signal.SIGCONT)
        await connection.close()


async def test_a_url_in_the_environment_replaces_an_engine(
    engines: Engines, folder: Path, plain: dict[str, str]
) -> None:
    environ = {
        **plain,
        "POLYMART_POSTGRES_ADMIN_URL": engines.postgres_admin_url,
        "POLYMART_NATS_URL": engines.nats_url,
        "POLYMART_SMTP_ADDRESS": engines.smtp_address,
    }
    await give_up_databases(engines)
    async with start_engines(folder, {"postgres", "nats", "smtp"}, environ=environ) as elsewhere:
        assert elsewhere.smtp_address == engines.smtp_address
        assert not any(engine.process.running for engine in elsewhere.by_name.values())
        connection = await asyncpg.connect(elsewhere.databases["order"])
        assert await connection.fetchval("SELECT current_user") == "polymart_order"
        await connection.close()
        with pytest.raises(EngineError, match="NATS: runs elsewhere"):
            await elsewhere.kill("nats")
    assert engines["nats"].process.running
    # Each data folder has passwords of its own: give the shared server back those it had.
    await give_up_databases(engines)
    await ensure_databases(engines.postgres_admin_url, engines.home)


async def give_up_databases(engines: Engines) -> None:
    """So that another data folder may have them."""
    admin = await asyncpg.connect(engines.postgres_admin_url)
    await admin.execute("COMMENT ON ROLE polymart_auditor IS NULL")
    await admin.close()


async def test_the_databases_of_another_data_folder_are_left_alone(
    engines: Engines, folder: Path, plain: dict[str, str]
) -> None:
    environ = {**plain, "POLYMART_POSTGRES_ADMIN_URL": engines.postgres_admin_url}
    with pytest.raises(EngineError) as refused:
        async with start_engines(folder / "other's", {"postgres"}, environ=environ):
            pass
    said = str(refused.value)
    assert f"are those of another data folder, {engines.home.folder};" in said
    assert "COMMENT ON ROLE polymart_auditor IS NULL" in said
    assert "\n" not in said
    for url in (*engines.databases.urls.values(), *engines.databases.auditors.values()):
        await (await asyncpg.connect(url)).close()


async def test_every_engine_starts_in_a_folder_of_any_name(folder: Path, plain: dict[str, str]) -> None:
    odd = folder / """Lädchen 'n "büro" %d {x} $HOME 店"""
    async with start_engines(odd, environ=plain) as engines:
        for engine in engines.by_name.values():
            await engine.check(engine.url)
    assert (odd / "nats" / "store" / "jetstream").is_dir()
