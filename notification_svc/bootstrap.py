"""Where notification_svc's parts meet."""

from nats.aio.msg import Msg
from polymart.notification.v1.events_pb2 import NotificationCreated
from polymart.notification.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server

from chassis import postgres
from chassis.clock import SystemClock
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.hints import NatsHints
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY
from chassis.metrics import Metrics
from chassis.outbox.postgres import PostgresOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, schema_check
from chassis.service import Check, Service, Servicer
from notification_svc.adapters.postgres_notifications import PostgresNotifications
from notification_svc.application.watching import NotificationWatch
from notification_svc.config import NotificationConfig
from notification_svc.entrypoints.grpc import NotificationServicer
from notification_svc.entrypoints.messages import handlers

NAME = "notification_svc"
CREATED = f"{TOPOLOGY.route(NotificationCreated.DESCRIPTOR.full_name).prefix}.*"


def build(config: NotificationConfig) -> Service:
    metrics = Metrics(NAME)
    db, nats = Postgres(config.postgres_url, name=NAME), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    outbox = PostgresOutbox(db)
    watch = NotificationWatch()
    notifications = PostgresNotifications(db, outbox, watch.changed)
    watch.reads(notifications)
    clock = SystemClock()
    reactions = handlers(notifications=notifications, clock=clock)
    subscriptions = [
        Subscription(nats, consumer, reactions, PostgresInbox(db), metrics) for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    servicer = NotificationServicer(notifications=notifications, watch=watch, clock=clock)
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[db, nats],
        schema=schema_check(db, NAME),
        ready=[Check("postgresql", db.ready)],
        servicers=[
            Servicer(
                add_NotificationServiceServicer_to_server, servicer, "polymart.notification.v1.NotificationService"
            )
        ],
        workers=[
            Relay(outbox, Publisher(nats), metrics, NAME),
            *subscriptions,
            watch,
            NatsHints(nats, CREATED, watch, _told),
        ],
    )


async def migrate(config: NotificationConfig) -> None:
    """Bring the database to the schema of this release."""
    await postgres.migrate(config.postgres_url, NAME)


def _told(message: Msg) -> str:
    return NotificationCreated.FromString(message.data).notification.customer_id
