"""Killed with SIGKILL at every step of every operation: one charge, one refund, and equal books."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

import asyncpg
import pytest
from google.protobuf.message import Message
from polymart.payment.v1.events_pb2 import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentRefunded,
    PaymentVoided,
)

from chassis.money import Money
from chassis.postgres import migrate as apply_migrations
from payment_svc.bootstrap import NAME
from payment_svc.config import PaymentConfig
from tests.conftest import Engine, until
from tests.integration.payment.firm import open_firm
from tests.integration.payment.mortal import Step, Worker, live_until
from tests.integration.payment.support import (
    authorize,
    booked,
    books_agree,
    capture,
    configured,
    done,
    new_id,
    refund,
    void,
)

# Its server imports once what every worker needs; each is forked off it, before anything runs.
WORLD = get_context("forkserver")
WORLD.set_forkserver_preload(["tests.integration.payment.mortal"])

PART = Money("GBP", 5_000_000_000)


@dataclass(frozen=True, slots=True)
class Case:
    """What came before, the command, its answer, and what the provider did in all once it is through."""

    before: tuple[Callable[[str], Message], ...]
    command: Callable[[str], Message]
    answer: type[Message]
    did: tuple[str, ...]


def refund_a_part(payment_id: str) -> Message:
    return refund(payment_id, "part", PART)


CASES = {
    "authorise": Case((), authorize, PaymentAuthorized, ("AUTHORIZE",)),
    "capture": Case((authorize,), capture, PaymentCaptured, ("AUTHORIZE", "CAPTURE")),
    "void": Case((authorize,), void, PaymentVoided, ("AUTHORIZE", "VOID")),
    "refund": Case((authorize, capture), refund_a_part, PaymentRefunded, ("AUTHORIZE", "CAPTURE", "REFUND")),
    "void after the capture": Case((authorize, capture), void, PaymentVoided, ("AUTHORIZE", "CAPTURE", "REFUND")),
    "void after a refund": Case(
        (authorize, capture, refund_a_part), void, PaymentVoided, ("AUTHORIZE", "CAPTURE", "REFUND", "REFUND")
    ),
}


@pytest.fixture(scope="module")
async def config(postgres: Engine) -> AsyncIterator[PaymentConfig]:
    async with configured(postgres.url, "nats://127.0.0.1:4222") as made:
        yield made


@pytest.fixture(scope="module")
async def db(config: PaymentConfig) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(config.postgres_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def provider(config: PaymentConfig) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(config.provider_url)
    yield connection
    await connection.close()


def born(own: str, firm: str, command: Message, message_id: str, step: Step | None) -> ForkServerProcess:
    """A worker's process that has been started."""
    process = WORLD.Process(target=live_until, args=(own, firm, command, message_id, step), daemon=True)
    process.start()
    return process


async def others_go_on(worker: Worker, command: Message, message_id: str) -> None:
    """The broker delivers again what may not have been acknowledged, and another worker takes it."""
    for _ in range(2):
        await worker.handle(command, message_id)
        await worker.ask()


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("name", CASES)
async def test_a_worker_killed_at_any_step_leaves_one_charge_and_equal_books(
    name: str, step: Step, config: PaymentConfig, db: asyncpg.Connection, provider: asyncpg.Connection
) -> None:
    case, id, message_id = CASES[name], new_id(), new_id()
    urls = config.postgres_url, config.provider_url
    async with Worker(*urls) as worker:
        for earlier in case.before:
            await worker.handle(earlier(id), new_id())
            await worker.ask()

        mortal = WORLD.Process(target=live_until, args=(*urls, case.command(id), message_id, step), daemon=True)
        mortal.start()
        await asyncio.to_thread(mortal.join, 60)
        assert mortal.exitcode == -signal.SIGKILL
        charged = len(await done(provider, id)) - len(case.before)
        assert charged == (step in (Step.CHARGED, Step.ANSWERED, Step.SETTLED))

        await others_go_on(worker, case.command(id), message_id)
    assert await done(provider, id) == list(case.did)
    await books_agree(db, provider)
    told = await db.fetch("SELECT headers FROM outbox WHERE aggregate_id = $1 AND subject LIKE $2 ORDER BY seq",
                          id, f"%.{case.answer.DESCRIPTOR.name}.%")  # fmt: skip
    assert len(told) == 1
    assert f'"{message_id}"' in told[0]["headers"]
    assert not await db.fetchval("SELECT count(*) FROM attempts WHERE state IN ('WAITING', 'PENDING')")


@pytest.mark.parametrize("name", CASES)
async def test_a_worker_killed_while_it_waits_for_a_provider_over_http_leaves_one_charge(
    name: str, database: str
) -> None:
    case, id, message_id = CASES[name], new_id(), new_id()
    await apply_migrations(database, NAME)
    async with open_firm(patience=60) as firm, Worker(database, firm.url) as worker:
        for earlier in case.before:
            await worker.handle(earlier(id), new_id())
            await worker.ask()
        firm.fate = lambda method, key: "slow" if method == "POST" else ""
        mortal = born(database, firm.url, case.command(id), message_id, None)
        await until(lambda: len(firm.moves) > len(case.before), 60)
        mortal.kill()
        await asyncio.to_thread(mortal.join, 60)
        firm.fate = lambda method, key: ""
        await others_go_on(worker, case.command(id), message_id)
        assert [move.kind for move in firm.moves] == list(case.did)
        assert set(firm.calls.values()) == {1}
        db = await asyncpg.connect(database)
        assert await booked(db) == firm.did()
        await db.close()
