import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.postgres import MigrationChanged, Postgres, SchemaPending, migrate, schema_check
from devstack.engine import Engine
from tests.conftest import free_port, until


@pytest.fixture
async def db(database: str) -> AsyncIterator[Postgres]:
    db = Postgres(database)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that writes a service's package with these migrations."""

    def write(**scripts: str) -> str:
        folder = tmp_path / "migrating_svc" / "migrations"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "__init__.py").touch()
        for name, sql in scripts.items():
            (folder / f"{name}.sql").write_text(sql)
        return "migrating_svc"

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "migrating_svc", raising=False)
    return write


async def test_migrations_are_applied_once_in_order_by_however_many(
    db: Postgres, database: str, package: Callable[..., str]
) -> None:
    name = package(m0002_more="INSERT INTO things VALUES (2);", m0001_first="CREATE TABLE things (id int); SELECT 1;")
    await asyncio.gather(*(migrate(database, name) for _ in range(4)))
    assert await db.fetchval("SELECT count(*) FROM things") == 1
    assert await db.fetchval("SELECT count(*) FROM outbox") == 0
    await schema_check(db, name)()


async def test_the_schema_is_pending_until_every_migration_is_applied(
    db: Postgres, database: str, package: Callable[..., str]
) -> None:
    check = schema_check(db, package(m0001_first="CREATE TABLE things (id int)"))
    with pytest.raises(SchemaPending, match=r"chassis/0001_messaging\.sql.*python -m migrating_svc migrate"):
        await check()
    await migrate(database, "migrating_svc")
    await check()
    package(m0002_second="CREATE TABLE others (id int)")
    with pytest.raises(SchemaPending, match="m0002_second"):
        await check()


async def test_a_migration_that_fails_leaves_nothing_behind(
    db: Postgres, database: str, package: Callable[..., str]
) -> None:
    package(m0001_first="CREATE TABLE things (id int)", m0002_bad="CREATE TABLE others (id int); SELECT 1/0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database, "migrating_svc")
    assert await db.fetchval("SELECT to_regclass('others')") is None
    package(m0002_bad="CREATE TABLE others (id int)")
    await migrate(database, "migrating_svc")
    await schema_check(db, "migrating_svc")()


async def test_an_applied_migration_that_was_edited_is_refused(database: str, package: Callable[..., str]) -> None:
    await migrate(database, package(m0001_first="CREATE TABLE things (id int)"))
    with pytest.raises(MigrationChanged, match="m0001_first"):
        await migrate(database, package(m0001_first="CREATE TABLE things (id bigint)"))


async def test_a_server_that_is_down_is_an_outage_and_nothing_waits_for_it_at_the_start() -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    db = Postgres(url)
    await db.open()
    for attempt in (db.ready, db.transaction().__aenter__, schema_check(db, "chassis")):
        with pytest.raises(Unavailable):
            await attempt()
    with pytest.raises(Unavailable):
        await migrate(url, "chassis")
    await db.close()
    with pytest.raises(Unavailable):
        await db.fetch("SELECT 1")


async def test_a_connection_that_is_lost_in_a_transaction_is_an_outage(db: Postgres, database: str) -> None:
    with pytest.raises(Unavailable):  # noqa: PT012
        async with db.transaction() as tx:
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            admin = await asyncpg.connect(database)
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            await admin.close()
            await tx.execute("SELECT 1")
    await db.ready()


async def test_what_whoever_runs_the_server_did_is_an_outage(db: Postgres, database: str) -> None:
    """A password or a name that is wrong now, a grant that is missing, a query that was cancelled."""
    name = f"worker_{uuid7().replace('-', '')}"
    await db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'first'; CREATE TABLE things (id int)")
    place = database.rpartition("@")[2]
    urls = [f"postgresql://{name}:second@{place}", f"postgresql://{name}:first@{place}_gone"]
    for wrong in map(Postgres, urls):
        await wrong.open()
        with pytest.raises(Unavailable):
            await wrong.ready()
        await wrong.close()
    worker = Postgres(f"postgresql://{name}:first@{place}")
    await worker.open()
    with pytest.raises(Unavailable):
        await worker.fetch("SELECT * FROM things")
    with pytest.raises(Unavailable):  # noqa: PT012
        async with worker.transaction() as tx:
            await tx.execute("SET LOCAL statement_timeout = 10")
            await tx.execute("SELECT pg_sleep(5)")
    await worker.close()
    await db.execute(f"DROP ROLE {name}")


async def test_what_follows_a_commit_happens_only_after_it(db: Postgres) -> None:
    await db.execute("CREATE TABLE things (id int)")
    seen: list[str] = []
    with pytest.raises(asyncpg.DivisionByZeroError):  # noqa: PT012
        async with db.transaction() as tx:
            tx.after_commit(lambda: seen.append("never"))
            await tx.execute("SELECT 1/0")
    async with db.transaction() as tx:
        tx.after_commit(lambda: seen.append("after"))
        await tx.execute("INSERT INTO things VALUES (1)")
        assert not seen
    assert seen == ["after"]


async def test_a_caller_that_is_cancelled_leaves_the_pool_usable(db: Postgres) -> None:
    await db.execute("CREATE TABLE things (id int)")

    async def write() -> None:
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO things VALUES (1)")
            await tx.execute("SELECT pg_sleep(5)")

    for delay in (0.0, 0.001, 0.01, 0.05):
        writing = [asyncio.create_task(write()) for _ in range(12)]
        await asyncio.sleep(delay)
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
    assert await db.fetchval("SELECT count(*) FROM things") == 0
    await asyncio.gather(*(db.ready() for _ in range(20)))


async def test_callers_that_go_while_the_server_stands_still_leave_no_error_that_nobody_hears(
    database: str, postgres: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if postgres.external:
        pytest.skip("a server that runs elsewhere isn't stopped")
    monkeypatch.setattr("chassis.postgres.COMMAND_TIMEOUT", 0.5)
    tasks = len(asyncio.all_tasks())
    unheard: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(str(context["message"])))
    db = Postgres(database)
    await db.open()

    held, release = asyncio.Barrier(11), asyncio.Event()

    async def ask(then: str) -> None:
        async with db.transaction() as tx:
            await tx.execute("SELECT 1")
            await held.wait()
            await release.wait()
            if then:
                await tx.execute(then)

    # Half of them are at the commit when they go, half at a query.
    asking = [asyncio.create_task(ask("SELECT 1" if number % 2 else "")) for number in range(10)]
    await held.wait()
    await postgres.kill(signal.SIGSTOP)
    try:
        release.set()
        while not all(task.done() for task in asking):  # they are cancelled wherever they are
            await asyncio.sleep(0.1)
            [task.cancel() for task in asking]
        await until(lambda: len(asyncio.all_tasks()) == tasks)
        del asking
        gc.collect()
    finally:
        await postgres.kill(signal.SIGCONT)
    assert unheard == []
    await db.ready()
    await db.close()
