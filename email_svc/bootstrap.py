"""Where email_svc's parts meet."""

from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceStub

from chassis.clock import SystemClock
from chassis.inbox.port import NoInbox
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY
from chassis.metrics import Metrics
from chassis.rpc.client import RpcClient
from chassis.service import Service
from email_svc.adapters.grpc_customers import IDEMPOTENT, GrpcCustomers
from email_svc.adapters.jinja_letters import JinjaLetters
from email_svc.adapters.nats_deliveries import NatsDeliveries, ensure_bucket
from email_svc.adapters.smtp_mailer import SmtpMailer
from email_svc.application.ports import Recipient
from email_svc.application.postman import Postman
from email_svc.config import EmailConfig, mail_address
from email_svc.domain.delivery import TIMING, Timing
from email_svc.entrypoints.messages import HANDLERS

NAME = "email_svc"
# Small, because one slow delivery keeps the batch's others from being acknowledged.
BATCH = 64


def build(config: EmailConfig, *, timing: Timing = TIMING) -> Service:
    metrics = Metrics(NAME)
    clock, nats = SystemClock(), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    customers = RpcClient(
        config.customer_address,
        CustomerServiceStub,
        idempotent=IDEMPOTENT,
    )
    host, _, port = config.smtp_address.rpartition(":")
    mailer = SmtpMailer(host.strip("[]"), int(port))
    postman = Postman(
        deliveries=NatsDeliveries(nats),
        customers=GrpcCustomers(customers),
        letters=JinjaLetters(mail_address(config.mail_from), clock),
        mailer=mailer,
        announcements=Publisher(nats),
        clock=clock,
        merchant=_merchant(config),
        timing=timing,
    )
    subscriptions = [
        Subscription(nats, consumer, HANDLERS, NoInbox(postman), metrics, batch=BATCH)
        for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[nats, customers, mailer],
        # Its only RPCs are health and reflection, which need nothing.
        ready=[],
        servicers=[],
        workers=subscriptions,
    )


def _merchant(config: EmailConfig) -> Recipient | None:
    if not config.merchant_mail:
        return None
    address = mail_address(config.merchant_mail)
    return Recipient(address.display_name, address.addr_spec)


async def migrate(config: EmailConfig) -> None:
    """Make the delivery log."""
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    await nats.open()
    try:
        await ensure_bucket(nats)
    finally:
        await nats.close()
