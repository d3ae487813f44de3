"""Where adapters meet use cases: the service as a parts list."""

from polymart.inventory.v1.inventory_service_pb2_grpc import add_InventoryServiceServicer_to_server

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
from chassis.service import Check, Service, Servicer
from inventory_svc.adapters.postgres_ledger import PostgresLedger
from inventory_svc.adapters.postgres_locations import PostgresLocations
from inventory_svc.adapters.postgres_stock import PostgresBook, PostgresWarehouse
from inventory_svc.config import InventoryConfig
from inventory_svc.entrypoints.grpc import InventoryServicer
from inventory_svc.entrypoints.messages import reactions

NAME = "inventory_svc"


def build(config: InventoryConfig) -> Service:
    metrics = Metrics(NAME)
    db, nats = Postgres(config.postgres_url, name=NAME), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    outbox = PostgresOutbox(db)
    relay = Relay(outbox, Publisher(nats), metrics, name=NAME)
    handlers = reactions(lambda tx, causes: PostgresBook(tx, outbox, causes))
    subscriptions = [
        Subscription(nats, consumer, handlers, PostgresInbox(db), metrics) for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    servicer = InventoryServicer(PostgresWarehouse(db, outbox), PostgresLedger(db), PostgresLocations(db))
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[db, nats],
        schema=schema_check(db, NAME),
        ready=[Check("postgresql", db.ready)],
        servicers=[
            Servicer(add_InventoryServiceServicer_to_server, servicer, "polymart.inventory.v1.InventoryService")
        ],
        workers=[relay, *subscriptions],
    )


async def migrate(config: InventoryConfig) -> None:
    """Bring the database to this release's schema."""
    await apply_migrations(config.postgres_url, NAME)
