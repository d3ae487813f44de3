"""The service on real databases and a real broker, commanded as in production."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
from polymart.payment.v1.events_pb2 import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoided,
)
from polymart.payment.v1.payment_pb2 import (
    PAYMENT_STATUS_CAPTURED,
    PAYMENT_STATUS_DECLINED,
    REFUND_STATUS_DONE,
    REFUND_STATUS_FAILED,
)
from polymart.payment.v1.payment_service_pb2 import GetPaymentRequest, ListPaymentsRequest, RefundPaymentRequest
from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceStub

from chassis.messaging.nats import Nats
from chassis.money import Money
from chassis.postgres import Postgres
from payment_svc.adapters.sandbox_provider import SandboxProvider
from payment_svc.bootstrap import build
from payment_svc.config import PaymentConfig
from payment_svc.domain.payments import Approved, Attempt, Operation, Outcome, Refused
from tests.conftest import Engine, until
from tests.integration.inventory.support import (
    Stage,
    broker,
    follows,
    reason_of,
    running,
    stage,
    stub_of,
    violations_of,
)
from tests.integration.payment.support import (
    PRICE,
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


@pytest.fixture(scope="module")
async def outside(nats: Engine) -> AsyncIterator[Nats]:
    async with broker(nats.url) as connection:
        yield connection


@pytest.fixture(scope="module")
async def config(postgres: Engine, nats: Engine) -> AsyncIterator[PaymentConfig]:
    async with configured(postgres.url, nats.url) as made:
        yield made


@pytest.fixture(scope="module")
async def payments(config: PaymentConfig, outside: Nats) -> AsyncIterator[PaymentServiceStub]:
    """A running service, the same for all tests."""
    async with running(build(config)) as (service,), stub_of(service.address, PaymentServiceStub) as stub:
        yield stub


@pytest.fixture
async def orders(outside: Nats) -> AsyncIterator[Stage]:
    async with stage(outside, "payment") as made:
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


@pytest.fixture(autouse=True)
async def nothing_yet(payments: PaymentServiceStub, provider: asyncpg.Connection, db: asyncpg.Connection) -> None:
    await provider.execute("TRUNCATE operations, unheard")
    await db.execute("TRUNCATE payments, attempts, entries")


async def test_authorised_and_captured(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection
) -> None:
    id = new_id()
    (asked,) = await orders.send(authorize(id))
    await orders.answered(PaymentAuthorized)
    (authorized,) = orders.heard
    assert authorized.payload == PaymentAuthorized(payment_id=id, amount=PRICE.to_proto())
    assert follows(authorized, asked)
    (told,) = await orders.send(capture(id))
    await orders.answered(PaymentCaptured)
    captured = orders.heard[-1]
    assert captured.payload == PaymentCaptured(payment_id=id, amount=PRICE.to_proto())
    assert follows(captured, told)
    payment = await payments.GetPayment(GetPaymentRequest(payment_id=id), timeout=5)
    assert payment.status == PAYMENT_STATUS_CAPTURED
    assert payment.amount == PRICE.to_proto()
    assert payment.provider_reference.startswith("tp_")
    rows = await provider.fetch("SELECT key, amount, currency FROM operations ORDER BY at")
    assert [tuple(row) for row in rows] == [
        (f"{id}:AUTHORIZE", PRICE.nanos, "GBP"),
        (f"{id}:CAPTURE", PRICE.nanos, "GBP"),
    ]


async def test_what_the_tokens_do(payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection) -> None:
    tokens = ["tok_declined", "tok_unheard_of", "tok_timeout_once", "tok_late", "tok_capture_refused"]
    ids = {token: new_id() for token in tokens}
    await orders.send(*(authorize(ids[token], token) for token in tokens))
    await orders.answered(PaymentDeclined, 2)
    await orders.answered(PaymentAuthorized, 3)
    reasons = {e.payment_id: e.reason for e in orders.answers(PaymentDeclined)}
    assert reasons == {ids["tok_declined"]: "the card was declined", ids["tok_unheard_of"]: "unknown token"}
    await orders.send(*(capture(ids[token]) for token in tokens[2:]))
    await orders.answered(PaymentCaptured, 2)
    await orders.answered(PaymentCaptureFailed)
    (failed,) = orders.answers(PaymentCaptureFailed)
    assert failed == PaymentCaptureFailed(payment_id=ids["tok_capture_refused"], reason="the card is blocked")
    await orders.send(void(failed.payment_id))
    await orders.answered(PaymentVoided)
    assert await done(provider, failed.payment_id) == ["AUTHORIZE", "VOID"]
    assert await done(provider, ids["tok_late"]) == ["AUTHORIZE", "CAPTURE"]
    assert await done(provider, ids["tok_timeout_once"]) == ["AUTHORIZE", "CAPTURE"]
    assert await provider.fetchval("SELECT count(*) FROM unheard") == 1


async def test_slow_answers_hold_up_no_other(payments: PaymentServiceStub, orders: Stage) -> None:
    slow, quick = new_id(), new_id()
    await orders.send(authorize(slow, "tok_late"), authorize(quick))
    await orders.answered(PaymentAuthorized, 2)
    assert [e.payment_id for e in orders.answers(PaymentAuthorized)] == [quick, slow]


async def test_a_void_waits_for_an_authorisation_that_is_late(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection
) -> None:
    id, declined = new_id(), new_id()
    await orders.send(authorize(id, "tok_late"))

    async def asked() -> bool:
        return bool(await done(provider, id))

    await until(asked)
    (told,) = await orders.send(void(id))
    await orders.answered(PaymentVoided)
    assert [type(e.payload) for e in orders.heard] == [PaymentVoided]
    assert follows(orders.heard[0], told)
    assert await status(payments, id) == "VOIDED"
    assert await done(provider, id) == ["AUTHORIZE", "VOID"]

    await orders.send(authorize(declined, "tok_declined"), void(declined))
    await orders.answered(PaymentVoided, 2)
    assert await done(provider, declined) == []


async def test_a_void_that_came_first_refuses_what_comes_after(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection
) -> None:
    id = new_id()
    await orders.send(void(id))
    await orders.answered(PaymentVoided)
    await orders.send(authorize(id))
    await orders.answered(PaymentVoided, 2)
    await orders.send(capture(id))
    await orders.answered(PaymentCaptureFailed)
    assert await status(payments, id) == "VOIDED"
    assert await done(provider, id) == []
    payment = await payments.GetPayment(GetPaymentRequest(payment_id=id), timeout=5)
    assert not payment.HasField("amount")


async def test_a_repeated_command_is_answered_again_and_charges_nothing(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection
) -> None:
    id, voided, declined = new_id(), new_id(), new_id()
    steps = [
        (authorize(id), PaymentAuthorized, 1),
        (capture(id), PaymentCaptured, 1),
        (authorize(declined, "tok_declined"), PaymentDeclined, 1),
        (authorize(voided), PaymentAuthorized, 2),
        (void(voided), PaymentVoided, 1),
    ]
    for command, answer, count in steps:
        await orders.send(command)
        await orders.answered(answer, count)
    for command, answer, count in ((steps[0][0], PaymentAuthorized, 3), (steps[1][0], PaymentCaptured, 2),
                                   (steps[2][0], PaymentDeclined, 2), (steps[4][0], PaymentVoided, 2)):  # fmt: skip
        await orders.send(command)
        await orders.answered(answer, count)
    assert await provider.fetchval("SELECT count(*) FROM operations") == 5


async def bought(orders: Stage, *ids: str, token: str = "tok_approved") -> None:
    """Authorised and captured payments."""
    await orders.send(*(authorize(id, token) for id in ids))
    await orders.answered(PaymentAuthorized, len(ids))
    await orders.send(*map(capture, ids))
    await orders.answered(PaymentCaptured, len(ids))


async def test_refunds_in_parts_up_to_what_was_captured(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection, db: asyncpg.Connection
) -> None:
    id, part, rest = new_id(), Money("GBP", 5_000_000_000), Money("GBP", 7_340_000_000)
    await bought(orders, id)
    asked = await orders.send(refund(id, "one", part), refund(id, "two", rest), refund(id, "three", part))
    await orders.answered(PaymentRefunded, 2)
    await orders.answered(PaymentRefundFailed)
    given = [e for e in orders.heard if isinstance(e.payload, PaymentRefunded)]
    assert [e.payload for e in given] == [
        PaymentRefunded(payment_id=id, operation_id=name, amount=amount.to_proto())
        for name, amount in (("one", part), ("two", rest))
    ]
    assert all(follows(event, command) for event, command in zip(given, asked, strict=False))
    (refused,) = orders.answers(PaymentRefundFailed)
    assert refused == PaymentRefundFailed(payment_id=id, operation_id="three", reason="0.00 GBP is left to refund")
    await orders.send(refund(id, "one", part), refund(id, "three", part))
    await orders.answered(PaymentRefunded, 3)
    await orders.answered(PaymentRefundFailed, 2)
    assert await done(provider, id) == ["AUTHORIZE", "CAPTURE", "REFUND", "REFUND"]
    await books_agree(db, provider)
    payment = await payments.GetPayment(GetPaymentRequest(payment_id=id), timeout=5)
    assert (payment.status, payment.captured) == (PAYMENT_STATUS_CAPTURED, PRICE.to_proto())
    assert payment.refunded == PRICE.to_proto()
    statuses = [(r.operation_id, r.status) for r in payment.refunds]
    assert statuses == [("one", REFUND_STATUS_DONE), ("two", REFUND_STATUS_DONE), ("three", REFUND_STATUS_FAILED)]


async def test_a_void_after_the_capture_gives_back_what_refunds_left(
    orders: Stage, payments: PaymentServiceStub, provider: asyncpg.Connection, db: asyncpg.Connection
) -> None:
    id, part = new_id(), Money("GBP", 5_000_000_000)
    await bought(orders, id)
    _, told = await orders.send(refund(id, "one", part), void(id))
    await orders.answered(PaymentVoided)
    voided = orders.heard[-1]
    rest = Money("GBP", PRICE.nanos - part.nanos)
    assert voided.payload == PaymentVoided(payment_id=id, refunded=rest.to_proto())
    assert follows(voided, told)
    await orders.send(refund(id, "late", part))
    await orders.answered(PaymentRefundFailed)
    assert await status(payments, id) == "VOIDED"
    assert await done(provider, id) == ["AUTHORIZE", "CAPTURE", "REFUND", "REFUND"]
    await books_agree(db, provider)
    left = "SELECT sum(amount) FROM entries WHERE payment_id = $1 AND account IN ('HOLDS', 'PROVIDER')"
    assert await db.fetchval(left, id) == 0


async def test_a_refund_that_comes_before_its_capture_is_made_after_it(
    orders: Stage, payments: PaymentServiceStub, provider: asyncpg.Connection
) -> None:
    id = new_id()
    await orders.send(authorize(id))
    await orders.answered(PaymentAuthorized)
    await orders.send(refund(id, "early", PRICE))
    await orders.send(capture(id))
    await orders.answered(PaymentRefunded)
    assert await done(provider, id) == ["AUTHORIZE", "CAPTURE", "REFUND"]


async def test_a_refund_that_the_provider_refuses_leaves_the_payment_captured(
    orders: Stage, payments: PaymentServiceStub, db: asyncpg.Connection, provider: asyncpg.Connection
) -> None:
    id = new_id()
    await bought(orders, id, token="tok_refund_refused")
    await orders.send(refund(id, "one", PRICE))
    await orders.answered(PaymentRefundFailed)
    assert orders.answers(PaymentRefundFailed)[0].reason == "the card's account is closed"
    assert await status(payments, id) == "CAPTURED"
    await books_agree(db, provider)


async def test_an_operator_refunds_once_for_each_request(
    payments: PaymentServiceStub, orders: Stage, provider: asyncpg.Connection
) -> None:
    id, waiting, part = new_id(), new_id(), Money("GBP", 5_000_000_000).to_proto()
    await bought(orders, id)
    await orders.send(authorize(waiting))
    await orders.answered(PaymentAuthorized, 2)
    request = RefundPaymentRequest(request_id=new_id(), payment_id=id, amount=part)
    for answer in await asyncio.gather(*(payments.RefundPayment(request, timeout=5) for _ in range(5))):
        assert [r.operation_id for r in answer.refunds] == [request.request_id]
    await orders.answered(PaymentRefunded)
    assert orders.heard[-1].causation_id == request.request_id
    assert await done(provider, id) == ["AUTHORIZE", "CAPTURE", "REFUND"]

    def differing(**changes: object) -> RefundPaymentRequest:
        return RefundPaymentRequest(**{"request_id": new_id(), "payment_id": id, "amount": part, **changes})

    refused = [
        (differing(amount=PRICE.to_proto()), "NOT_REFUNDABLE"),
        (differing(payment_id=waiting), "PAYMENT_NOT_CAPTURED"),
        (differing(payment_id=new_id()), "PAYMENT_NOT_FOUND"),
        (differing(request_id=request.request_id, amount=PRICE.to_proto()), "REQUEST_ID_REUSED"),
    ]
    for asked, reason in refused:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await payments.RefundPayment(asked, timeout=5)
        assert reason_of(failure.value) == reason
    bad = [
        (RefundPaymentRequest(), {"request_id", "payment_id", "amount"}),
        (differing(request_id="7", amount=Money("GBP", -1).to_proto()), {"request_id", "amount"}),
        (differing(amount=Money("EUR", 1).to_proto()), {"amount.currency_code"}),
    ]
    for asked, fields in bad:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await payments.RefundPayment(asked, timeout=5)
        assert violations_of(failure.value) == fields
    assert await done(provider, id) == ["AUTHORIZE", "CAPTURE", "REFUND"]


@pytest.mark.parametrize("token", ["tok_expires", "tok_approved"])
async def test_an_authorisation_that_expired_is_not_captured_and_can_be_let_go(
    token: str, orders: Stage, payments: PaymentServiceStub, provider: asyncpg.Connection, db: asyncpg.Connection
) -> None:
    id = new_id()
    await orders.send(authorize(id, token))
    await orders.answered(PaymentAuthorized)
    if token == "tok_approved":
        await provider.execute("UPDATE operations SET expires_at = now() WHERE payment_id = $1", id)
    await orders.send(capture(id))
    await orders.answered(PaymentCaptureFailed)
    failed = PaymentCaptureFailed(payment_id=id, reason="the authorisation expired")
    assert orders.answers(PaymentCaptureFailed) == [failed]
    await orders.send(void(id))
    await orders.answered(PaymentVoided)
    assert await status(payments, id) == "VOIDED"
    await books_agree(db, provider)


async def test_the_ledger_takes_nothing_that_is_off_and_no_second_thoughts(
    orders: Stage, payments: PaymentServiceStub, db: asyncpg.Connection
) -> None:
    id = new_id()
    await bought(orders, id)
    insert = "INSERT INTO entries (payment_id, operation, operation_id, account, currency, amount) VALUES "
    await db.execute(
        "INSERT INTO attempts (payment_id, operation, operation_id, amount, state, causation_id, correlation_id) "
        "VALUES ($1, 'REFUND', 'x', 5, 'APPROVED', gen_random_uuid(), '')", id,
    )  # fmt: skip
    changes = [
        insert + "($1, 'REFUND', 'x', 'PROVIDER', 'GBP', -5)",
        insert + "($1, 'REFUND', 'x', 'PROVIDER', 'GBP', -5), ($1, 'REFUND', 'x', 'REFUNDS', 'EUR', 5)",
        insert + "($1, 'CAPTURE', '', 'REFUNDS', 'GBP', 5)",
        insert + "($1, 'CAPTURE', '', 'SALES', 'GBP', 0)",
        insert + "($1, 'REFUND', 'y', 'SALES', 'GBP', 0)",
        "UPDATE entries SET amount = 0 WHERE payment_id = $1",
        "DELETE FROM entries WHERE payment_id = $1",
        "UPDATE payments SET refunded = captured + 1 WHERE payment_id = $1",
        "UPDATE payments SET captured = amount + 1 WHERE payment_id = $1",
    ]
    for change in changes:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await db.execute(change, id)
    await db.execute(
        insert + "($1, 'REFUND', 'x', 'PROVIDER', 'GBP', -5), ($1, 'REFUND', 'x', 'REFUNDS', 'GBP', 5)", id
    )


async def test_reading(payments: PaymentServiceStub, orders: Stage) -> None:
    ids = [new_id() for _ in range(7)]
    for n, id in enumerate(ids):
        await orders.send(authorize(id, "tok_declined" if n % 3 == 0 else "tok_approved"))
    await orders.answered(PaymentAuthorized, 4)
    await orders.answered(PaymentDeclined, 3)
    everything = await payments.ListPayments(ListPaymentsRequest(), timeout=5)
    times = [p.create_time.ToDatetime() for p in everything.payments]
    assert times == sorted(times, reverse=True)
    assert {p.payment_id for p in everything.payments} == set(ids)
    paged, token = [], ""
    for _ in range(4):
        request = ListPaymentsRequest(page_size=2, page_token=token)
        page = await payments.ListPayments(request, timeout=5)
        paged += page.payments
        token = page.next_page_token
    assert not token
    assert paged == list(everything.payments)
    declined = await payments.ListPayments(ListPaymentsRequest(status=PAYMENT_STATUS_DECLINED), timeout=5)
    assert {p.payment_id for p in declined.payments} == set(ids[::3])
    first = await payments.ListPayments(ListPaymentsRequest(page_size=1), timeout=5)
    bad = [
        (ListPaymentsRequest(page_size=-1, page_token="?", status=99), {"page_size", "page_token", "status"}),
        (ListPaymentsRequest(page_token=first.next_page_token, status=PAYMENT_STATUS_DECLINED), {"page_token"}),
    ]
    for request, fields in bad:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await payments.ListPayments(request, timeout=5)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations_of(failure.value) == fields
    for id, code in ((new_id(), grpc.StatusCode.NOT_FOUND), ("7", grpc.StatusCode.INVALID_ARGUMENT)):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await payments.GetPayment(GetPaymentRequest(payment_id=id), timeout=5)
        assert failure.value.code() is code


async def test_the_sandbox_obeys_tokens(config: PaymentConfig) -> None:
    db = Postgres(config.provider_url)
    await db.open()
    provider = SandboxProvider(db, timeout=1)

    async def ask(attempt: Attempt) -> dict[str, Outcome]:
        return {key: outcome async for answers in provider.submit([attempt]) for key, outcome in answers.items()}

    late = Attempt("late", Operation.AUTHORIZE, PRICE, "tok_late")
    assert await ask(late) == {}
    assert isinstance((await provider.find([late.key]))[late.key], Approved)
    assert await ask(late) == await provider.find([late.key])
    lost = Attempt("lost", Operation.AUTHORIZE, PRICE, "tok_timeout_once")
    assert await ask(lost) == {}
    assert await provider.find([lost.key]) == {lost.key: None}
    assert isinstance((await ask(lost))[lost.key], Approved)
    assert await ask(Attempt("nobody", Operation.CAPTURE, PRICE, "")) == {
        "nobody:CAPTURE": Refused("nothing is authorised")
    }
    await db.close()
