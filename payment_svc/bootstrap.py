"""Where adapters meet use cases: the service as a parts list."""

from polymart.payment.v1.payment_service_pb2_grpc import add_PaymentServiceServicer_to_server

from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY
from chassis.metrics import Metrics
from chassis.outbox.postgres import PostgresOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, schema_check
from chassis.postgres import migrate as apply_migrations
from chassis.service import Check, Resource, Service, Servicer
from payment_svc.adapters.http_provider import HttpProvider
from payment_svc.adapters.postgres_payments import PostgresPayments
from payment_svc.adapters.sandbox_provider import SandboxProvider
from payment_svc.application.ports import Provider
from payment_svc.config import PaymentConfig
from payment_svc.entrypoints.grpc import PaymentServicer
from payment_svc.entrypoints.messages import reactions
from payment_svc.entrypoints.webhooks import Webhooks
from payment_svc.entrypoints.worker import ProviderWorker

NAME = "payment_svc"


def build(config: PaymentConfig) -> Service:
    metrics = Metrics(NAME)
    db, nats = Postgres(config.postgres_url, name=NAME), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    outbox = PostgresOutbox(db)
    relay = Relay(outbox, Publisher(nats), metrics, name=NAME)
    payments = PostgresPayments(db, outbox)
    provider, firm = _provider(config)
    worker = ProviderWorker(payments, provider, timeout=config.provider_timeout_seconds)
    payments.on_pending(worker.nudge)
    handlers = reactions(payments.ledger)
    subscriptions = [
        Subscription(nats, consumer, handlers, PostgresInbox(db), metrics) for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[db, nats, firm, *_webhooks(config, payments)],
        schema=schema_check(db, NAME),
        # The provider isn't asked: without it payments wait, and can be read all the same.
        ready=[Check("postgresql", db.ready)],
        servicers=[
            Servicer(
                add_PaymentServiceServicer_to_server,
                PaymentServicer(payments),
                "polymart.payment.v1.PaymentService",
            )
        ],
        workers=[relay, worker, *subscriptions],
    )


def _provider(config: PaymentConfig) -> tuple[Provider, Resource]:
    """The provider, and what of it is to be opened."""
    timeout = config.provider_timeout_seconds
    if config.sandboxed:
        db = Postgres(config.provider_url, name="sandbox_provider")
        return SandboxProvider(db, timeout=timeout), db
    firm = HttpProvider(config.provider_url, api_key=config.provider_api_key.get_secret_value(), timeout=timeout)
    return firm, firm


def _webhooks(config: PaymentConfig, payments: PostgresPayments) -> list[Resource]:
    if not config.provider_webhook_address:
        return []
    secret = config.provider_webhook_secret.get_secret_value()
    return [Webhooks(config.provider_webhook_address, secret=secret, payments=payments)]


async def migrate(config: PaymentConfig) -> None:
    """Bring the service's database to this release's schema, and make the sandbox provider's tables in its own."""
    await apply_migrations(config.postgres_url, NAME)
    if not config.sandboxed:
        return
    provider_db = Postgres(config.provider_url, name="sandbox_provider")
    await provider_db.open()
    try:
        await SandboxProvider(provider_db, timeout=config.provider_timeout_seconds).create_schema()
    finally:
        await provider_db.close()
