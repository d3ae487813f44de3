"""Workers, instances and a provider that die or fall silent: nobody is charged twice, and nobody is lost."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import asyncpg
import pytest
from polymart.payment.v1.events_pb2 import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentVoided,
)
from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceStub

from chassis.errors import Unavailable
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.money import Money
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres
from payment_svc.adapters.postgres_payments import PostgresPayments
from payment_svc.adapters.sandbox_provider import SandboxProvider
from payment_svc.application.payments import ask_provider, carry_out
from payment_svc.bootstrap import build
from payment_svc.config import PaymentConfig
from payment_svc.domain.payments import Attempt, Authorize, Outcome
from tests.conftest import Engine, until
from tests.integration.inventory.support import (
    Stage,
    digest,
    kill,
    outbox_is_empty,
    running,
    stage,
    stub_of,
)
from tests.integration.payment.support import (
    PRICE,
    TIMEOUT,
    authorize,
    books_agree,
    capture,
    configured,
    done,
    new_id,
    refund,
    status,
    void,
)


@pytest.fixture
async def config(postgres: Engine, nats: Engine) -> AsyncIterator[PaymentConfig]:
    async with configured(postgres.url, nats.url) as made:
        yield made


@pytest.fixture
async def orders(fresh_nats: Nats) -> AsyncIterator[Stage]:
    async with stage(fresh_nats, "payment") as made:
        yield made


@pytest.fixture
async def provider(config: PaymentConfig) -> AsyncIterator[asyncpg.Connection]:
    """The provider's own record."""
    connection = await asyncpg.connect(config.provider_url)
    yield connection
    await connection.close()


@pytest.fixture
async def db(config: PaymentConfig) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(config.postgres_url)
    yield connection
    await connection.close()


async def test_a_provider_that_is_down_leaves_the_rpcs_and_is_asked_when_it_is_back(
    config: PaymentConfig, orders: Stage, postgres: Engine
) -> None:
    name = config.provider_url.rpartition("/")[2]
    admin = await asyncpg.connect(postgres.url)
    await admin.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
    id = new_id()
    async with running(build(config)) as (service,), stub_of(service.address, PaymentServiceStub) as stub:
        await orders.send(authorize(id))
        await orders.all_handled()
        assert await status(stub, id) == "AUTHORIZING"
        await admin.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
        await orders.answered(PaymentAuthorized)
        assert await status(stub, id) == "AUTHORIZED"
    await admin.close()


class Mortal:
    """A provider whose caller may die right after it did what it was asked; or which hears nothing."""

    def __init__(self, provider: SandboxProvider, dice: random.Random):
        self._provider = provider
        self._dice = dice

    async def submit(self, attempts: Sequence[Attempt]) -> AsyncIterator[Mapping[str, Outcome]]:
        fate = self._dice.random()
        if fate < 0.2:
            raise Unavailable("not heard")
        async for answers in self._provider.submit(attempts):
            if fate < 0.4:
                raise asyncio.CancelledError
            if fate < 0.5:
                return
            yield dict(list(answers.items())[: len(answers) // 2]) if fate < 0.6 else answers

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome | None]:
        if self._dice.random() < 0.2:
            raise Unavailable("not heard")
        return await self._provider.find(keys)


async def test_workers_that_die_at_any_point_charge_nobody_twice_and_lose_nobody(
    config: PaymentConfig,
    orders: Stage,
    db: asyncpg.Connection,
    provider: asyncpg.Connection,
) -> None:
    dice = random.Random(11)
    ids = [new_id() for _ in range(60)]
    own, firm = Postgres(config.postgres_url), Postgres(config.provider_url)
    await own.open()
    await firm.open()
    payments = PostgresPayments(own, PostgresOutbox(own))
    mortal = Mortal(SandboxProvider(firm, timeout=TIMEOUT), dice)

    async def work() -> bool:
        """Workers with short leases, three at a time, until nothing is pending."""

        async def one() -> None:
            # Cancelled as by a kill: whatever isn't committed is lost.
            await asyncio.wait(
                [asyncio.create_task(ask_provider(7, lease=timedelta(), payments=payments, provider=mortal))]
            )

        await asyncio.gather(*(one() for _ in range(3)))
        await db.execute("UPDATE attempts SET due_at = now() - interval '1 s'")
        return not await db.fetchval("SELECT count(*) FROM attempts WHERE state IN ('PENDING', 'WAITING')")

    # The service takes the commands only: its own worker asks a provider that nobody reaches.
    deaf = build(config.model_copy(update={"provider_url": config.provider_url + "_nowhere"}))
    async with running(deaf):
        tokens = ["tok_approved", "tok_approved", "tok_declined", "tok_capture_refused"]
        await orders.send(*(authorize(id, dice.choice(tokens)) for id in ids))
        await orders.all_handled()
        voided = dice.sample(ids, 15)
        await orders.send(*map(void, voided))
        await orders.all_handled()
        await until(work, 30)
        await until(lambda: len(_about(orders, PaymentAuthorized, PaymentDeclined, PaymentVoided)) >= 60)
        authorized = [e.payment_id for e in orders.answers(PaymentAuthorized)]
        await orders.send(*map(capture, authorized))
        await orders.all_handled()
        await until(work, 30)
        await until(lambda: len(_about(orders, PaymentCaptured, PaymentCaptureFailed)) >= len(authorized))
        captured = [e.payment_id for e in orders.answers(PaymentCaptured)]
        assert len(captured) == len(set(captured))
        part = Money("GBP", 5_000_000_000)
        await orders.send(*(refund(id, name, part) for name in ("one", "two") for id in captured))
        await orders.send(*map(void, given_back := captured[:8]))
        await orders.all_handled()
        await until(work, 30)
        await until(lambda: len(orders.answers(PaymentRefunded)) >= 2 * len(captured))
        await until(lambda: _about(orders, PaymentVoided) >= set(given_back))
    await own.close()
    await firm.close()
    mine = {row["payment_id"]: row["status"] for row in await db.fetch("SELECT payment_id, status FROM payments")}
    assert set(mine) == set(ids)
    for id, known in mine.items():
        back = ["REFUND"] * (3 if id in given_back else 2)
        assert (await done(provider, id), known) in [
            (["AUTHORIZE", "CAPTURE", *back], "VOIDED" if id in given_back else "CAPTURED"),
            (["AUTHORIZE"], "CAPTURE_FAILED"),
            ([], "DECLINED"),
            (["AUTHORIZE", "VOID"], "VOIDED"),
        ]
    assert len(set(mine.values())) == 4
    await books_agree(db, provider)
    tries = await db.fetchval("SELECT max(tries) FROM attempts")
    assert tries > 2


def _about(orders: Stage, *kinds: type) -> set[str]:
    return {e.aggregate_id for e in orders.heard if isinstance(e.payload, kinds)}


async def test_two_instances_one_killed_and_every_command_sent_again(
    config: PaymentConfig, orders: Stage, provider: asyncpg.Connection
) -> None:
    dice = random.Random(5)
    ids = [new_id() for _ in range(80)]
    tokens = ["tok_approved"] * 6 + ["tok_declined", "tok_late", "tok_timeout_once"]
    async with running(build(config), build(config)) as (_, two):
        sent = []
        for n in range(0, 80, 20):
            sent += await orders.send(*(authorize(id, dice.choice(tokens)) for id in ids[n : n + 20]))
        kill(two)
        # What the dead one held would be redelivered in half a minute.
        await orders.resend(sent)
        await until(lambda: len(_about(orders, PaymentAuthorized, PaymentDeclined)) >= 80, 30)
        authorized = {e.payment_id for e in orders.answers(PaymentAuthorized)}
        await orders.send(*map(capture, sorted(authorized)))
        await until(lambda: len(_about(orders, PaymentCaptured)) == len(authorized))
    twice = "SELECT 1 FROM operations GROUP BY payment_id, kind HAVING count(*) > 1"
    assert await provider.fetch(twice) == []

    before = await digest(config.postgres_url), await digest(config.provider_url)
    await orders.refill()
    async with running(build(config)):
        await orders.all_handled()
        await outbox_is_empty(config.postgres_url)
    assert (await digest(config.postgres_url), await digest(config.provider_url)) == before


class Silent:
    """A provider that is never heard of again."""

    async def submit(self, attempts: Sequence[Attempt]) -> AsyncIterator[Mapping[str, Outcome]]:
        for _ in ():
            yield {}

    async def find(self, keys: Sequence[str]) -> Mapping[str, Outcome | None]:
        return {}


async def test_an_unknown_outcome_is_due_again_soon_unless_another_claimed_it(
    config: PaymentConfig, db: asyncpg.Connection
) -> None:
    pool = Postgres(config.postgres_url)
    await pool.open()
    payments = PostgresPayments(pool, PostgresOutbox(pool))
    cause = Envelope.new(authorize("p"), aggregate_id="p", source="order_svc")
    async with pool.transaction() as tx:
        await carry_out([Authorize("p", PRICE, "tok_approved")], ledger=payments.ledger(tx, [cause]))

    async def due_in() -> float:
        return await db.fetchval("SELECT extract(epoch FROM due_at - now())::float8 FROM attempts")

    hour = timedelta(hours=1)
    (claim,) = await ask_provider(10, lease=hour, payments=payments, provider=Silent())
    assert await due_in() <= 0.25
    await until(lambda: payments.claim(10, hour))
    assert await ask_provider(10, lease=hour, payments=payments, provider=Silent()) == []
    await payments.defer([claim])
    assert await due_in() > 3_000
    await pool.close()
