"""What every inbox does, whatever its store."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from chassis.ids import uuid7
from chassis.inbox.memory import MemoryInbox
from chassis.inbox.port import NoInbox, UnitOfWork
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.topology import INBOX_RETENTION
from chassis.postgres import Postgres, migrate


@pytest.fixture
async def db(database: str) -> AsyncIterator[Postgres]:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    yield db
    await db.close()


@pytest.fixture(params=["memory", "postgres"])
def inbox(request: pytest.FixtureRequest) -> UnitOfWork[object]:
    return MemoryInbox() if request.param == "memory" else PostgresInbox(request.getfixturevalue("db"))


async def handle(inbox: UnitOfWork[object], consumer: str, ids: list[str]) -> set[str]:
    async with inbox.begin(consumer, ids) as (_, fresh):
        return fresh


async def test_a_message_is_fresh_once(inbox: UnitOfWork[object]) -> None:
    first, second, third = uuid7(), uuid7(), uuid7()
    assert await handle(inbox, "c", [first, second]) == {first, second}
    assert await handle(inbox, "c", [second, third]) == {third}
    assert await handle(inbox, "c", [first, second, third]) == set()


async def test_each_consumer_has_its_own_view(inbox: UnitOfWork[object]) -> None:
    id = uuid7()
    assert await handle(inbox, "one", [id]) == {id}
    assert await handle(inbox, "two", [id]) == {id}


async def test_after_a_failure_it_is_fresh_again(inbox: UnitOfWork[object]) -> None:
    id = uuid7()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with inbox.begin("c", [id]) as (_, fresh):
            assert fresh == {id}
            raise ZeroDivisionError
    assert await handle(inbox, "c", [id]) == {id}


async def test_two_at_once_with_the_same_messages_handle_each_once(inbox: UnitOfWork[object]) -> None:
    ids = [uuid7() for _ in range(20)]
    handled: list[str] = []

    async def work(order: list[str]) -> None:
        async with inbox.begin("c", order) as (_, fresh):
            await asyncio.sleep(0.01)
            handled.extend(fresh)

    async with asyncio.timeout(10):
        await asyncio.gather(work(ids), work(ids[::-1]), work(ids[5:15]))
    assert sorted(handled) == sorted(ids)


async def test_of_two_at_once_the_second_takes_over_what_the_first_fails(inbox: UnitOfWork[object]) -> None:
    id = uuid7()
    began = asyncio.Event()

    async def fail() -> None:
        async with inbox.begin("c", [id]):
            began.set()
            await asyncio.sleep(0.02)
            raise ZeroDivisionError

    failing = asyncio.create_task(fail())
    await began.wait()
    assert await handle(inbox, "c", [id]) == {id}
    with pytest.raises(ZeroDivisionError):
        await failing


async def test_effects_and_record_are_one_transaction(db: Postgres) -> None:
    inbox = PostgresInbox(db)
    await db.execute("CREATE TABLE effects (id uuid)")
    id = uuid7()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with inbox.begin("c", [id]) as (tx, _):
            await tx.execute("INSERT INTO effects VALUES ($1)", id)
            raise ZeroDivisionError
    for _ in range(3):
        async with inbox.begin("c", [id]) as (tx, fresh):
            for one in fresh:
                await tx.execute("INSERT INTO effects VALUES ($1)", one)
    assert await db.fetchval("SELECT count(*) FROM effects") == 1


async def test_pruning_forgets_only_what_cannot_come_again(db: Postgres) -> None:
    inbox = PostgresInbox(db)
    old, recent = uuid7(), uuid7()
    await handle(inbox, "c", [old, recent])
    await db.execute(
        "UPDATE inbox SET received_at = now() - $2::interval WHERE id = $1", old, INBOX_RETENTION + timedelta(hours=1)
    )
    await inbox.prune()
    assert await handle(inbox, "c", [old, recent]) == {old}


async def test_without_an_inbox_everything_is_fresh() -> None:
    unit = NoInbox("index")
    for _ in range(2):
        async with unit.begin("c", ["a", "b"]) as (tx, fresh):
            assert (tx, fresh) == ("index", {"a", "b"})
