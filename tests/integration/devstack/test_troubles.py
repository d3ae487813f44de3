"""What can't be started or reached is told in one line that names the engine, the cause and a remedy."""

import asyncio
import sysconfig
from pathlib import Path

import pytest

from devstack.engine import Engine
from devstack.engines import start_engines
from devstack.errors import EngineError


async def trouble(folder: Path, name: str, environ: dict[str, str]) -> str:
    with pytest.raises(EngineError) as raised:
        async with start_engines(folder, {name}, environ=environ):
            pass
    message = str(raised.value)
    assert "\n" not in message
    assert "; " in message
    return message


@pytest.mark.parametrize(
    ("name", "variable", "url"),
    [
        ("postgres", "POLYMART_POSTGRES_ADMIN_URL", "localhost:5432"),
        ("postgres", "POLYMART_POSTGRES_ADMIN_URL", "postgresql://me:hidden@host:port/postgres"),
        ("nats", "POLYMART_NATS_URL", "http://127.0.0.1:4222"),
        ("mongodb", "POLYMART_MONGODB_URL", "mongodb://me:hidden@:x"),
        ("elasticsearch", "POLYMART_ELASTICSEARCH_URL", "9200"),
        ("smtp", "POLYMART_SMTP_ADDRESS", "mail.example.org"),
    ],
)
async def test_a_bad_url_is_named(folder: Path, plain: dict[str, str], name: str, variable: str, url: str) -> None:
    message = await trouble(folder, name, {**plain, variable: url})
    assert variable in message
    assert "write it like" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    ("name", "variable", "url"),
    [
        ("postgres", "POLYMART_POSTGRES_ADMIN_URL", "postgresql://me:hidden@127.0.0.1:9/postgres"),
        ("nats", "POLYMART_NATS_URL", "nats://127.0.0.1:9"),
        ("mongodb", "POLYMART_MONGODB_URL", "mongodb://127.0.0.1:9/"),
        ("elasticsearch", "POLYMART_ELASTICSEARCH_URL", "http://127.0.0.1:9"),
        ("smtp", "POLYMART_SMTP_ADDRESS", "127.0.0.1:9"),
    ],
)
async def test_a_server_that_cannot_be_reached_is_named(
    folder: Path, plain: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str, variable: str, url: str
) -> None:
    monkeypatch.setattr(Engine, "reach_patience", 0)
    message = await trouble(folder, name, {**plain, variable: url})
    assert f"127.0.0.1:9, named by {variable}, can't be used" in message
    assert "hidden" not in message


async def test_a_missing_program_is_named(folder: Path, plain: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    message = await trouble(folder, "mongodb", {**plain, "POLYMART_MONGOD": "/nowhere/mongod"})
    assert "/nowhere/mongod, named by POLYMART_MONGOD" in message
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder))
    assert "nats-server is missing" in await trouble(folder, "nats", plain)


async def test_a_folder_that_cannot_be_written_is_named(folder: Path, plain: dict[str, str]) -> None:
    (folder / "file").touch()
    message = await trouble(folder / "file" / "home", "nats", plain)
    assert f"data folder {folder / 'file' / 'home'}: can't be written" in message


async def test_a_file_in_place_of_the_folder_is_named(folder: Path, plain: dict[str, str]) -> None:
    (folder / "file").touch()
    message = await trouble(folder / "file", "nats", plain)
    assert message.endswith(f"{folder / 'file'} is a file; name another folder in POLYMART_HOME")


@pytest.mark.parametrize("text", ["{not json", "[]", '{"postgres superuser": 7}', "\xff"])
async def test_passwords_that_cannot_be_read_are_named_before_anything_starts(
    folder: Path, plain: dict[str, str], text: str
) -> None:
    (folder / "passwords.json").write_text(text, encoding="latin-1")
    message = await trouble(folder, "nats", plain)
    assert message.startswith(f"{folder / 'passwords.json'}: can't be read: ")
    assert f"restore it, or delete {folder} with all its data" in message
    assert not (folder / "nats").exists()
    (folder / "passwords.json").unlink()
    async with start_engines(folder, {"nats"}, environ=plain):
        pass


async def test_lost_passwords_are_told_at_once(
    folder: Path, plain: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_engines(folder, {"postgres"}, environ=plain):
        kept = (folder / "passwords.json").read_text()
    (folder / "passwords.json").unlink()
    # One that waited for its password to come right would wait for ever.
    monkeypatch.setattr(Engine, "start_patience", 3_600)
    message = await asyncio.wait_for(trouble(folder, "postgres", plain), 60)
    assert message.startswith("PostgreSQL: password authentication failed")
    assert f"restore {folder / 'passwords.json'} as it was" in message
    (folder / "passwords.json").write_text(kept)
    async with start_engines(folder, {"postgres"}, environ=plain):
        pass


async def test_an_engine_that_dies_at_its_start_is_quoted(folder: Path, plain: dict[str, str]) -> None:
    (folder / "nats").mkdir()
    (folder / "nats" / "store").touch()
    message = await trouble(folder, "nats", plain)
    assert message.startswith("NATS: ended with code 1 at its start: ")
    assert "storage directory is not a directory" in message
    assert "logs/nats.log" in message


async def test_a_mongod_that_is_named_is_preferred(folder: Path, plain: dict[str, str]) -> None:
    mongod = folder / "mongod"
    mongod.write_text('#!/bin/sh\necho "run with $*"; exit 7\n')
    mongod.chmod(0o755)
    message = await trouble(folder / "home", "mongodb", {**plain, "POLYMART_MONGOD": str(mongod)})
    assert "ended with code 7 at its start: run with --dbpath" in message
    on_path = {**plain, "PATH": f"{folder}:{plain['PATH']}"}
    assert "ended with code 7" in await trouble(folder / "home", "mongodb", on_path)


async def test_one_that_fails_takes_the_others_down_with_it(folder: Path, plain: dict[str, str]) -> None:
    environ = {**plain, "POLYMART_MONGOD": "/nowhere/mongod"}
    with pytest.raises(EngineError, match="MongoDB"):
        async with start_engines(folder, {"nats", "mongodb", "elasticsearch"}, environ=environ):
            pass
    assert not (folder / "stack.json").exists()
    assert not [task for task in asyncio.all_tasks() if "Engine" in repr(task)]
