"""The service and a provider over HTTP that is slow, fails, falls silent, and tells things twice and late."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from polymart.payment.v1.events_pb2 import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    PaymentVoided,
)
from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceStub
from pydantic import SecretStr

from chassis.messaging.nats import Nats
from chassis.money import Money
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres
from chassis.service import CannotListen
from payment_svc.adapters.postgres_payments import PostgresPayments
from payment_svc.bootstrap import build
from payment_svc.config import PaymentConfig
from payment_svc.entrypoints.webhooks import TOLERANCE_SECONDS, Webhooks, sign
from tests.conftest import Engine, free_port, until
from tests.integration.inventory.support import Stage, running, stage, stub_of
from tests.integration.payment.firm import API_KEY, DONE, SECRET, UNDONE, Firm, moody, once, open_firm, post
from tests.integration.payment.support import (
    TIMEOUT,
    authorize,
    booked,
    capture,
    configured,
    new_id,
    refund,
    status,
    void,
)

PART = Money("GBP", 5_000_000_000)


@pytest.fixture
async def firm() -> AsyncIterator[Firm]:
    async with open_firm(patience=TIMEOUT) as opened:
        yield opened


@pytest.fixture
async def config(postgres: Engine, nats: Engine, firm: Firm) -> AsyncIterator[PaymentConfig]:
    async with configured(postgres.url, nats.url) as made:
        yield made.model_copy(
            update={
                "provider_url": firm.url,
                "provider_api_key": SecretStr(API_KEY),
                "provider_webhook_address": f"127.0.0.1:{free_port()}",
                "provider_webhook_secret": SecretStr(SECRET),
            }
        )


@pytest.fixture
async def orders(fresh_nats: Nats) -> AsyncIterator[Stage]:
    async with stage(fresh_nats, "payment") as made:
        yield made


@pytest.fixture
async def db(config: PaymentConfig) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(config.postgres_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("forgetful", [False, True], ids=["minds its keys", "forgets its keys"])
async def test_whatever_befalls_the_first_try_each_operation_is_done_once(
    config: PaymentConfig, orders: Stage, db: asyncpg.Connection, firm: Firm, forgetful: bool
) -> None:
    """Also by a provider that would do a key again: what it did is known by asking, so no key is sent again."""
    firm.forgetful = forgetful
    fates = (*UNDONE, *DONE)
    bought, called_off = [new_id() for _ in fates], [new_id() for _ in fates]
    fate_of = dict(zip(bought, fates, strict=True)) | dict(zip(called_off, fates, strict=True))
    first = {id: once(fate) for id, fate in fate_of.items()}
    firm.fate = lambda method, key: first[key.partition(":")[0]](method, key)
    async with running(build(config)):
        await orders.send(*map(authorize, fate_of))
        await orders.answered(PaymentAuthorized, len(fate_of))
        await orders.send(*map(capture, bought), *map(void, called_off))
        await orders.answered(PaymentCaptured, len(bought))
        await orders.answered(PaymentVoided, len(called_off))
        await orders.send(*(refund(id, "one", PART) for id in bought))
        await orders.answered(PaymentRefunded, len(bought))
    did = firm.did()
    assert len(did) == len(set(did)) == 3 * len(bought) + 2 * len(called_off)
    assert await booked(db) == did
    assert {firm.calls[f"{id}:CAPTURE"] for id in bought if fate_of[id] in DONE} == {1}
    assert {firm.calls[f"{id}:CAPTURE"] for id in bought if fate_of[id] in UNDONE} == {2}


async def test_through_any_trouble_the_books_are_the_providers(
    config: PaymentConfig, orders: Stage, db: asyncpg.Connection, firm: Firm
) -> None:
    dice = random.Random(3)
    firm.fate = moody(dice)
    ids = [new_id() for _ in range(30)]
    voided = ids[:8]

    async def gossip() -> None:
        """Webhooks about anything, in any order, some of them twice."""
        while True:
            key, again = dice.choice([*firm.record, "nobody:AUTHORIZE"]), dice.random() < 0.3
            for _ in range(1 + again):
                id = f"about {key} {dice.randrange(1000)}"
                await firm.notify(config.provider_webhook_address, key, id=id, at=int(time.time()))
            await asyncio.sleep(0.01)

    async with running(build(config)):
        talking = asyncio.create_task(gossip())
        sent = await orders.send(*(authorize(id, "tok_declined" if n % 5 == 4 else "ok") for n, id in enumerate(ids)))
        await orders.send(*map(void, voided))
        await orders.resend(dice.sample(sent, 10))

        def answered(*kinds: type) -> set[str]:
            return {e.aggregate_id for e in orders.heard if isinstance(e.payload, kinds)}

        await until(lambda: answered(PaymentAuthorized, PaymentDeclined, PaymentVoided) >= set(ids), 40)
        good = sorted(answered(PaymentAuthorized) - set(voided))
        await orders.send(*map(capture, good))
        await until(lambda: answered(PaymentCaptured) >= set(good), 40)
        await orders.send(*(refund(id, name, PART) for id in good for name in ("one", "two")), *map(void, good[:5]))
        refunds = {(id, name) for id in good for name in ("one", "two")}
        await until(lambda: {(e.payment_id, e.operation_id) for e in orders.answers(PaymentRefunded)} >= refunds, 40)
        await until(lambda: answered(PaymentVoided) >= {*voided, *good[:5]}, 40)
        talking.cancel()
    did = firm.did()
    captures = [move for move in did if move[1] == "CAPTURE"]
    assert len(captures) == len(set(captures)) == len(good) > 10
    assert await booked(db) == did


async def test_a_webhook_has_a_pending_operation_looked_up_at_once(
    config: PaymentConfig, orders: Stage, db: asyncpg.Connection, firm: Firm
) -> None:
    id, address = new_id(), config.provider_webhook_address
    key, now = f"{id}:AUTHORIZE", int(time.time())
    firm.fate = lambda method, key: "pending"

    async def due_in_an_hour() -> None:
        """No worker will look by itself."""
        await db.execute("UPDATE attempts SET due_at = now() + interval '1 hour'")

    async def is_due() -> bool:
        return await db.fetchval("SELECT due_at < now() + interval '59 minutes' FROM attempts")

    async with running(build(config)) as (service,), stub_of(service.address, PaymentServiceStub) as stub:
        await orders.send(authorize(id))
        await until(lambda: key in firm.record)
        await until(lambda: db.fetchval("SELECT count(*) FROM attempts WHERE due_at < now() + interval '2 s'"))
        await due_in_an_hour()
        refused = [
            await firm.notify(address, key, at=now, secret="another secret of 25 chars"),
            await firm.notify(address, key, at=now - TOLERANCE_SECONDS - 5),
            await firm.notify(address, key, at=now + TOLERANCE_SECONDS + 60),
            await post(address, b"{}", None),
            await post(address, b"{}", "t=,v1="),
            await post(address, b'{"id": "x", "key": "y"}', sign(SECRET, b'{"id": "x", "key": "z"}', now)),
        ]
        assert refused == [401] * 6
        for body in (b"", b"[]", b"{}", b'{"id": 1, "key": "x"}', b'{"id": "a\\u0000", "key": "x"}', b"\xff"):
            assert await post(address, body, sign(SECRET, body, now)) == 400
        assert await post(address, b"x" * 100_000, "") == 413
        for other in ("nobody:AUTHORIZE", "nonsense", f"{id}:CAPTURE", f"{id}:REFUND:x"):
            assert await firm.notify(address, other, at=now) == 204
        assert not await is_due()
        # It says approved, but the provider's record doesn't.
        assert await firm.notify(address, key, id="early", at=now, status="approved") == 204
        await until(is_due)
        assert await status(stub, id) == "AUTHORIZING"
        await until(lambda: db.fetchval("SELECT due_at > now() FROM attempts"))
        await due_in_an_hour()
        firm.decide(key)
        assert await firm.notify(address, key, id="early", at=now) == 204
        assert not await is_due()
        assert await firm.notify(address, key, id="late", at=now - TOLERANCE_SECONDS + 60) == 204
        await orders.answered(PaymentAuthorized)
        assert await firm.notify(address, key, id="later still", at=now) == 204
    assert firm.calls[key] == 1
    assert await booked(db) == firm.did()


async def test_a_webhook_that_cannot_be_kept_is_to_be_sent_again(firm: Firm, postgres: Engine) -> None:
    away = Postgres(postgres.url + "_away")
    hooks = Webhooks("127.0.0.1:0", secret=SECRET, payments=PostgresPayments(away, PostgresOutbox(away)))
    await hooks.open()
    assert await firm.notify(hooks.address, "p:VOID", at=int(time.time())) == 503
    taken = Webhooks(hooks.address, secret=SECRET, payments=PostgresPayments(away, PostgresOutbox(away)))
    with pytest.raises(CannotListen, match="POLYMART_PROVIDER_WEBHOOK_ADDRESS"):
        await taken.open()
    await hooks.close()


async def test_a_wrong_api_key_refuses_nobody(
    config: PaymentConfig, orders: Stage, db: asyncpg.Connection, firm: Firm
) -> None:
    id = new_id()
    wrong = config.model_copy(update={"provider_api_key": SecretStr("sk_of_yesterday")})
    async with running(build(wrong)) as (service,), stub_of(service.address, PaymentServiceStub) as stub:
        await orders.send(authorize(id))
        await until(lambda: db.fetchval("SELECT tries > 1 FROM attempts"))
        assert await status(stub, id) == "AUTHORIZING"
    async with running(build(config)):
        await orders.answered(PaymentAuthorized)
    assert json.dumps([kind for _, kind, _, _ in firm.did()]) == '["AUTHORIZE"]'
