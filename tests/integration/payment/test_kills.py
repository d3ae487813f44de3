"""Killed with SIGKILL at every step of every operation: one charge, one refund, and equal books."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from multiprocessing import get_context

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
from payment_svc.config import PaymentConfig
from tests.conftest import Engine
from tests.integration.payment.mortal import Step, Worker, live_until
from tests.integration.payment.support import (
    authorize,
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

        # The broker delivers again what may not have been acknowledged, and another worker goes on.
        await worker.handle(case.command(id), message_id)
        await worker.ask()
        await worker.handle(case.command(id), message_id)
        await worker.ask()
    assert await done(provider, id) == list(case.did)
    await books_agree(db, provider)
    told = await db.fetch("SELECT headers FROM outbox WHERE aggregate_id = $1 AND subject LIKE $2 ORDER BY seq",
                          id, f"%.{case.answer.DESCRIPTOR.name}.%")  # fmt: skip
    assert len(told) == 1
    assert f'"{message_id}"' in told[0]["headers"]
    assert not await db.fetchval("SELECT count(*) FROM attempts WHERE state IN ('WAITING', 'PENDING')")
