"""What the tests of payments share: commands, settings, and what the provider has on record."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
from polymart.payment.v1.commands_pb2 import AuthorizePayment, CapturePayment, RefundPayment, VoidPayment
from polymart.payment.v1.payment_pb2 import PaymentStatus
from polymart.payment.v1.payment_service_pb2 import GetPaymentRequest
from polymart.payment.v1.payment_service_pb2_grpc import PaymentServiceStub

from chassis.money import Money
from payment_svc.bootstrap import migrate
from payment_svc.config import PaymentConfig
from tests.integration.inventory.support import databases

PRICE = Money("GBP", 12_340_000_000)
TIMEOUT = 0.5


@asynccontextmanager
async def configured(postgres_url: str, nats_url: str) -> AsyncIterator[PaymentConfig]:
    """Settings with migrated databases of their own."""
    async with databases(postgres_url, 2) as (own, firm):
        config = PaymentConfig(postgres_url=own, provider_url=firm, nats_url=nats_url, provider_timeout_seconds=TIMEOUT)
        await migrate(config)
        await migrate(config)
        yield config


def authorize(payment_id: str, token: str = "tok_approved") -> AuthorizePayment:
    return AuthorizePayment(payment_id=payment_id, amount=PRICE.to_proto(), payment_token=token)


def capture(payment_id: str) -> CapturePayment:
    return CapturePayment(payment_id=payment_id)


def refund(payment_id: str, operation_id: str, amount: Money) -> RefundPayment:
    return RefundPayment(payment_id=payment_id, operation_id=operation_id, amount=amount.to_proto())


def void(payment_id: str) -> VoidPayment:
    return VoidPayment(payment_id=payment_id)


def new_id() -> str:
    return str(uuid4())


async def status(stub: PaymentServiceStub, payment_id: str) -> str:
    payment = await stub.GetPayment(GetPaymentRequest(payment_id=payment_id), timeout=5)
    return PaymentStatus.Name(payment.status).removeprefix("PAYMENT_STATUS_")


async def done(provider: asyncpg.Connection, payment_id: str) -> list[str]:
    """What the provider did for a payment, in its order."""
    rows = await provider.fetch(
        "SELECT kind FROM operations WHERE payment_id = $1 AND outcome = 'APPROVED' ORDER BY at", payment_id
    )
    return [row["kind"] for row in rows]


async def books_agree(db: asyncpg.Connection, provider: asyncpg.Connection) -> None:
    """The ledger has what the sandbox did, operation by operation, and nothing else; every transaction balances."""
    did = "SELECT payment_id, kind, amount, currency FROM operations WHERE outcome = 'APPROVED'"
    assert await booked(db) == sorted(map(tuple, await provider.fetch(did)))


async def booked(db: asyncpg.Connection) -> list[tuple[str, str, int, str]]:
    """Payment, operation, amount and currency of every transaction of the ledger, each of which balances."""
    rows = await db.fetch(
        "SELECT payment_id, operation, max(amount), min(currency), sum(amount) AS off FROM entries "
        "GROUP BY payment_id, operation, operation_id"
    )
    assert [row for row in rows if row["off"]] == []
    return sorted((row[0], row[1], row[2], row[3]) for row in rows)
