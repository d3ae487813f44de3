"""The engines together: started side by side, stopped together, found by name."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from devstack.databases import Databases, ensure_databases
from devstack.engine import Engine
from devstack.errors import EngineError
from devstack.home import Home
from devstack.mongodb import MongoDB
from devstack.nats import NatsServer
from devstack.opensearch import OpenSearch
from devstack.postgres import Postgres
from devstack.search import SearchServer
from devstack.smtp import SmtpSink

KINDS: dict[str, type[Engine]] = {k.name: k for k in (Postgres, NatsServer, MongoDB, SearchServer, SmtpSink)}
ALL_ENGINES = tuple(KINDS)
SEARCH_ENGINE = "POLYMART_SEARCH_ENGINE"
SEARCH_ENGINES: dict[str, type[SearchServer]] = {"osmem": SearchServer, "opensearch": OpenSearch}


class Engines:
    """Some or all engines of one data folder: "postgres", "nats", "mongodb", "elasticsearch", "smtp"."""

    def __init__(self, home: Home, names: Iterable[str] = ALL_ENGINES):
        """Raises EngineError for a setting in the environment that no engine understands."""
        self.home = home
        kinds = {**KINDS, SearchServer.name: _search_kind(home.environ)}
        self.by_name = {name: kinds[name](home) for name in ALL_ENGINES if name in set(names)}
        self._databases: Databases | None = None

    def __getitem__(self, name: str) -> Engine:
        if name not in self.by_name:
            raise EngineError(name, "is not among the engines of this stack", f"engines: {', '.join(self.by_name)}")
        return self.by_name[name]

    @property
    def postgres_admin_url(self) -> str:
        return self["postgres"].url

    @property
    def databases(self) -> Databases:
        """The services' databases on PostgreSQL."""
        if self._databases is None:
            raise EngineError("PostgreSQL", "is not started", "start the engine `postgres` first")
        return self._databases

    @property
    def nats_url(self) -> str:
        return self["nats"].url

    @property
    def mongodb_url(self) -> str:
        return self["mongodb"].url

    @property
    def elasticsearch_url(self) -> str:
        return self["elasticsearch"].url

    @property
    def search_settings(self) -> dict[str, str]:
        """What search_svc is told of its engine, by variable without the prefix; passwords among it."""
        server = self["elasticsearch"]
        assert isinstance(server, SearchServer)
        return server.settings()

    @property
    def smtp_address(self) -> str:
        """host:port."""
        return self["smtp"].url.removeprefix("smtp://")

    @property
    def mailbox(self) -> Path:
        """Where the local sink writes mails, one *.eml each."""
        sink = self["smtp"]
        assert isinstance(sink, SmtpSink)
        return sink.mailbox

    async def start(self) -> None:
        """Start all side by side, then make the services' databases. Raises the first EngineError, all stopped."""
        try:
            await together(self._start(engine) for engine in self.by_name.values())
        except BaseException:
            await self.stop()
            raise

    async def _start(self, engine: Engine) -> None:
        await engine.start()
        if engine.name == Postgres.name:
            self._databases = await ensure_databases(engine.url, self.home)

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self.by_name.values()))

    async def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal an engine and, with SIGKILL, SIGSTOP and SIGCONT, all its processes."""
        await self[name].kill(number)

    async def restart(self, name: str) -> None:
        """Start an engine again on the same port and data; stops it first if it still runs."""
        await self[name].restart()


def _search_kind(environ: Mapping[str, str]) -> type[Engine]:
    named = environ.get(SEARCH_ENGINE) or "osmem"
    if named not in SEARCH_ENGINES:
        cause = f"{SEARCH_ENGINE} names {named!r}, which is none that this stack can start"
        raise EngineError(SearchServer.title, cause, f"say {' or '.join(SEARCH_ENGINES)}")
    return SEARCH_ENGINES[named]


async def together(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Do all at once. The first failure, or a cancellation, ends the others before it is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


@asynccontextmanager
async def start_engines(
    data_dir: Path,
    names: Iterable[str] = ALL_ENGINES,
    *,
    environ: Mapping[str, str] = os.environ,
    on_progress: Callable[[str], None] | None = None,
) -> AsyncIterator[Engines]:
    """Engines alone, without services: `async with start_engines(folder, {"postgres", "nats"}) as engines`.

    The data stays in `data_dir`. Raises EngineError.
    """
    home = Home(data_dir, environ=environ, progress=on_progress)
    engines = Engines(home, names)
    await home.open()
    try:
        await engines.start()
        try:
            yield engines
        finally:
            await engines.stop()
    finally:
        await home.close()
