"""Engines for the tests: started once a session, on free loopback ports, thrown away after it.

`postgres`, `nats`, `mongodb`, `osmem` and `opensearch` are real engines, each with the `url` of a user with all rights;
`search_engine` is osmem and OpenSearch in turn.
`database` is the URL of a database of the test's own, `fresh_nats` a connection to newly made streams and consumers,
`fresh_search` the URL of the search engine without an index.

Engines that the environment names are not touched, since tests delete what they find, unless POLYMART_TEST_ON_ENGINES
is 1.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import asyncpg
import pytest
import structlog
from hypothesis import settings
from pymongo import AsyncMongoClient

from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.topology import TOPOLOGY
from devstack.engine import Engine
from devstack.engines import KINDS
from devstack.errors import EngineError
from devstack.home import Home
from devstack.mongodb import NAMED as MONGOD
from devstack.mongodb import MongoDB
from devstack.nats import NatsServer as DevstackNats
from devstack.opensearch import OpenSearch
from devstack.postgres import Postgres
from devstack.search import SearchServer

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("%H:%M:%S.%f"),
        # Plain tracebacks: drawing each with its variables takes longer than many a test.
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
)


def forget_engines(environ: MutableMapping[str, str]) -> None:
    """Take out of the environment what names engines that aren't the tests' own."""
    if environ.get("POLYMART_TEST_ON_ENGINES") != "1":
        for kind in KINDS.values():
            environ.pop(kind.variable, None)


# Before any test reads it, or a process that a test starts.
forget_engines(os.environ)

# How long an example takes says nothing on a machine that others share.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

BIN = Path(sysconfig.get_path("scripts"))


class NatsServer:
    """A broker of one's own, to kill."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = self._folder / "nats.conf"
        config.write_text(
            f"listen: 127.0.0.1:{self._port}\njetstream {{ store_dir: {str(self._folder)!r}, sync_interval: always }}\n"
        )
        self._process = spawn([str(BIN / "nats-server"), "-c", str(config)], self._folder / "log")
        wait_for_port(self._port)

    def kill(self) -> None:
        stop(self._process, signal.SIGKILL)
        self._process = None


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def spawn(command: list[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env=env)


def stop(process: subprocess.Popen[bytes] | None, how: int = signal.SIGTERM) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_port(port: int, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    """Wait for a condition, which may be a coroutine function; fail when it doesn't come true."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"waited {seconds} s for {condition}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def started(kind: type[Engine], folder: Path, environ: Mapping[str, str] = os.environ) -> AsyncIterator[Engine]:
    """An engine while the block lasts. Where it can't be had, the test is skipped, or fails on CI."""
    # Streams are the same for all of a broker's users: tests empty them, so the broker is one of their own.
    home = Home(folder, environ={k: v for k, v in environ.items() if k != DevstackNats.variable})
    await home.open()
    engine = kind(home)
    try:
        try:
            await engine.start()
        except EngineError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        yield engine
    finally:
        await engine.stop()
        await home.close()


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    async with started(Postgres, tmp_path_factory.mktemp("postgres")) as engine:
        yield engine


@pytest.fixture(scope="session")
async def nats(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    async with started(DevstackNats, tmp_path_factory.mktemp("nats")) as engine:
        yield engine


@pytest.fixture(scope="session")
async def mongodb(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Engine]:
    """A real MongoDB where one is found, else SecantusDB."""
    async with started(MongoDB, tmp_path_factory.mktemp("mongodb")) as engine:
        await _note(engine, pytestconfig)
        yield engine


@pytest.fixture(scope="session")
async def secantus(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> AsyncIterator[Engine]:
    """SecantusDB, whatever else there is."""
    folders = (f for f in os.environ["PATH"].split(os.pathsep) if not shutil.which("mongod", path=f))
    environ = {k: v for k, v in os.environ.items() if k not in (MongoDB.variable, MONGOD)}
    environ["PATH"] = os.pathsep.join(folders)
    async with started(MongoDB, tmp_path_factory.mktemp("secantus"), environ) as engine:
        await _note(engine, pytestconfig)
        yield engine


@pytest.fixture(scope="session")
def mongod(request: pytest.FixtureRequest) -> Engine:
    """A real MongoDB, where there is one: on the PATH, or named by POLYMART_MONGOD, or by POLYMART_MONGODB_URL where
    POLYMART_TEST_ON_ENGINES is 1."""
    if not (os.environ.get(MongoDB.variable) or os.environ.get(MONGOD) or shutil.which("mongod")):
        pytest.skip(f"there is no mongod: none on the PATH, and neither {MONGOD} nor {MongoDB.variable} is set")
    engine: Engine = request.getfixturevalue("mongodb")
    return engine


_USED = pytest.StashKey[dict[str, None]]()


async def _note(engine: Engine, config: pytest.Config) -> None:
    """Remember which MongoDB answers, to be said at the end."""
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(engine.url)
    try:
        told = await client.admin.command("buildInfo")
    finally:
        await client.close()
    other = told.get("secantusVersion")
    name = f"SecantusDB {other}" if other else f"MongoDB {told['version']}"
    config.stash.setdefault(_USED, {})[name] = None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if used := config.stash.get(_USED, None):
        terminalreporter.write_line(f"engines that spoke MongoDB's protocol: {', '.join(used)}")


@pytest.fixture(scope="session")
async def osmem(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """Or the server that POLYMART_ELASTICSEARCH_URL names, where POLYMART_TEST_ON_ENGINES is 1."""
    async with started(SearchServer, tmp_path_factory.mktemp("osmem")) as engine:
        yield engine


@pytest.fixture(scope="session")
async def opensearch(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """Lucene itself. Started by each process of the tests that has a use for it."""
    environ = {name: value for name, value in os.environ.items() if name != SearchServer.variable}
    async with started(OpenSearch, tmp_path_factory.mktemp("opensearch"), environ) as engine:
        yield engine


SEARCH_ENGINES = ("osmem", "opensearch")


@pytest.fixture(params=SEARCH_ENGINES)
def search_engine(request: pytest.FixtureRequest) -> Engine:
    """Each in turn: whoever uses it is a test on both."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker that a test may kill and start again."""
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
async def fresh_database(postgres: Engine) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """A function that makes an empty database and gives its URL."""
    made: list[str] = []
    admin = await asyncpg.connect(postgres.url)

    async def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        await admin.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return f"{postgres.url.rpartition('/')[0]}/{name}"

    yield make
    # An embedded server is thrown away with all its databases, and faster.
    for name in made if postgres.external else ():
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def database(fresh_database: Callable[[], Awaitable[str]]) -> str:
    return await fresh_database()


@pytest.fixture
def fresh_search(search_engine: Engine) -> str:
    return emptied(search_engine)


def emptied(search_engine: Engine) -> str:
    """The URL of an engine from which every index of products was deleted."""
    with urlopen(f"{search_engine.url}/_cat/indices?format=json", timeout=5) as answer:
        names = [index["index"] for index in json.load(answer)]
    for name in names:
        if name.startswith("product"):
            urlopen(Request(f"{search_engine.url}/{name}", method="DELETE"), timeout=5).close()
    return search_engine.url


@pytest.fixture
async def fresh_nats(nats: Engine) -> AsyncIterator[Nats]:
    """A connection to the broker with every declared stream and consumer, all of them empty."""
    connection = Nats(nats.url, "test")
    await connection.open()
    streams = await connection.js.streams_info()
    await asyncio.gather(*(connection.js.delete_stream(str(stream.config.name)) for stream in streams))
    await ensure_topology(connection, TOPOLOGY)
    yield connection
    await connection.close()
