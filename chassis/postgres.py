"""PostgreSQL: a pool, transactions, and migrations as plain SQL files.

Migrations are `<package>/migrations/NNNN_<what>.sql`: plain SQL, several statements a file, applied in the
order of their names, each file in a transaction of its own and exactly once. A file that was applied is never
edited: the next change is the next file. The tables of outbox and inbox come first, from
`chassis/migrations`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Any

import asyncpg

from chassis.errors import Aborted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    type_Pool = asyncpg.Pool[asyncpg.Record]
    type_Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

COMMAND_TIMEOUT = 10.0
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

_OUTAGES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    # Set up wrongly, or told to stop, by whoever runs the server: nothing that a caller could mend.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.QueryCanceledError,
    # What its protocol says when a server's farewell comes between two steps.
    asyncpg.InternalClientError,
)


# Another transaction won, or the schema changed under a prepared statement: the same again may work.
_CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InvalidCachedStatementError)
# How asyncpg's InterfaceError speaks of a connection that is gone, rather than of wrong use.
_LOST = ("closed", "closing", "in the middle", "released back to the pool")


class SchemaPending(Unavailable):
    """The database lacks migrations this release needs."""

    default_reason = "SCHEMA_PENDING"


class MigrationChanged(Exception):
    """A migration that was applied before reads differently now."""


@contextmanager
def _translated() -> "Iterator[None]":
    try:
        yield
    except _CONFLICTS as error:
        raise Aborted(f"PostgreSQL: {error}") from error
    except _OUTAGES as error:
        raise Unavailable(f"PostgreSQL can't be reached: {error or type(error).__name__}") from error
    except asyncpg.InterfaceError as error:
        if any(sign in str(error) for sign in _LOST):
            raise Unavailable(f"PostgreSQL connection lost: {error}") from error
        raise


class Transaction:
    """An open transaction. Arguments and results are asyncpg's.

    Outages and timeouts raise Unavailable, deadlocks and serialization failures Aborted; the rest is asyncpg's.
    """

    __slots__ = ("_after_commit", "_connection")

    def __init__(self, connection: "type_Connection"):
        self._connection = connection
        self._after_commit: list[Callable[[], None]] = []

    async def execute(self, query: str, *args: object) -> str:
        with _translated():
            return await self._connection.execute(query, *args)

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        with _translated():
            await self._connection.executemany(query, rows)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        with _translated():
            return await self._connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        with _translated():
            return await self._connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        with _translated():
            return await self._connection.fetchval(query, *args)

    async def cursor(self, query: str, *args: object, prefetch: int = 500) -> AsyncIterator[asyncpg.Record]:
        """The rows one by one, fetched `prefetch` at a time."""
        with _translated():
            async for row in self._connection.cursor(query, *args, prefetch=prefetch):
                yield row

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the transaction is committed; never if it isn't."""
        if callback not in self._after_commit:
            self._after_commit.append(callback)


class Postgres:
    """A database by its URL. `open` makes the pool without connecting: it works while the server is down."""

    def __init__(self, url: str, *, max_size: int = 10, name: str = "polymart"):
        self._url = url
        self._max_size = max_size
        self._name = name
        self._pool: type_Pool | None = None

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._max_size,
            timeout=5,
            command_timeout=COMMAND_TIMEOUT,
            reset=_keep_session,
            server_settings={
                "application_name": self._name,
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
                "jit": "off",
            },
        )

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), 5)
        except (TimeoutError, OSError):
            pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> "AsyncIterator[type_Connection]":
        if self._pool is None:
            raise Unavailable("PostgreSQL pool isn't open")
        with _translated():
            connection = await self._pool.acquire(timeout=COMMAND_TIMEOUT)
        try:
            yield connection
        finally:
            with _translated():
                releasing = asyncio.ensure_future(self._pool.release(connection, timeout=COMMAND_TIMEOUT))
                # A caller that goes meanwhile doesn't hear how it ends.
                releasing.add_done_callback(_retrieved)
                await asyncio.shield(releasing)

    @asynccontextmanager
    async def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> AsyncIterator[Transaction]:
        """A transaction that commits when the block ends and rolls back when it raises.

        Raises Unavailable where the server can't be reached. If that happens at the commit, whether it took
        effect is unknown: what runs in here must be safe to repeat.
        """
        async with self._connection() as connection:
            transaction = connection.transaction(isolation=isolation, readonly=readonly)  # type: ignore[arg-type]
            with _translated():
                await _step(connection, transaction.start())
            tx = Transaction(connection)
            try:
                yield tx
            except BaseException:
                # A lost connection has rolled back already; what matters is the error that led here.
                with suppress(*_OUTAGES, asyncpg.InterfaceError):
                    await _step(connection, transaction.rollback())
                raise
            with _translated():
                await _uninterrupted(_step(connection, transaction.commit()))
            for callback in tx._after_commit:
                callback()

    async def execute(self, query: str, *args: object) -> str:
        async with self._connection() as connection:
            with _translated():
                return await connection.execute(query, *args)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            with _translated():
                return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        async with self._connection() as connection:
            with _translated():
                return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        async with self._connection() as connection:
            with _translated():
                return await connection.fetchval(query, *args)

    async def ready(self) -> None:
        """Raises Unavailable unless the server answers a query."""
        await self.execute("SELECT 1")


async def _keep_session(_: object) -> None:
    """Nothing here sets session state, so releasing a connection needs no round trip to reset it."""


async def _step(connection: "type_Connection", step: Awaitable[None]) -> None:
    """Into a transaction or out of it. A connection on which the server doesn't answer to that is dropped: to give it
    back, the pool would ask the same server to end the transaction."""
    try:
        await step
    except asyncpg.PostgresError:
        raise
    except BaseException:
        with suppress(asyncpg.InterfaceError):  # of one that the pool has dropped already
            connection.terminate()
        raise


def _retrieved(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()


async def _uninterrupted(step: Awaitable[None]) -> None:
    """Await `step` to its end however often the caller is cancelled meanwhile: half a commit has no outcome."""
    task = asyncio.ensure_future(step)
    task.add_done_callback(_retrieved)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise


_CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package text NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, name)
)
"""
_LOCK = 7_069_113_842  # any number, the same for all


def _scripts(package: str) -> list[tuple[str, str, str]]:
    """(package, file name, SQL) of chassis's migrations, then of the package's, in order."""
    found: list[tuple[str, str, str]] = []
    for owner in dict.fromkeys(("chassis", package)):
        folder = resources.files(owner) / "migrations"
        files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
        found.extend((owner, f.name, f.read_text(encoding="utf-8")) for f in files)
    return found


def _checksum(sql: str) -> str:
    return hashlib.sha256(sql.encode()).hexdigest()


async def migrate(url: str, package: str) -> None:
    """Apply the migrations of `chassis` and of `package` that the database lacks.

    Safe in several processes at once. Raises Unavailable, MigrationChanged, or asyncpg's error for failing
    SQL.
    """
    with _translated():
        connection = await asyncpg.connect(url, timeout=5)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_CREATE_LEDGER)
        rows = await connection.fetch("SELECT package, name, checksum FROM schema_migrations")
        applied = {(row["package"], row["name"]): row["checksum"] for row in rows}
        for owner, name, sql in _scripts(package):
            checksum = _checksum(sql)
            if (known := applied.get((owner, name))) is None:
                async with connection.transaction():
                    await connection.execute(sql)
                    await connection.execute(
                        "INSERT INTO schema_migrations (package, name, checksum) VALUES ($1, $2, $3)",
                        owner,
                        name,
                        checksum,
                    )
            elif known != checksum:
                raise MigrationChanged(f"{owner}/migrations/{name} was edited after it was applied")
    finally:
        await connection.close()


def schema_check(db: Postgres, package: str) -> Callable[[], Awaitable[None]]:
    """A probe that raises SchemaPending until every migration is applied, Unavailable where it can't ask."""

    async def check() -> None:
        try:
            rows = await db.fetch("SELECT package, name FROM schema_migrations")
        except asyncpg.UndefinedTableError:
            rows = []
        applied = {(row["package"], row["name"]) for row in rows}
        missing = [f"{owner}/{name}" for owner, name, _ in _scripts(package) if (owner, name) not in applied]
        if missing:
            raise SchemaPending(f"the database lacks {', '.join(missing)}; run `python -m {package} migrate`")

    return check
