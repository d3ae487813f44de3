"""Where catalog_svc's parts meet."""

from polymart.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server

from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.config import CatalogConfig
from catalog_svc.entrypoints.grpc import CatalogServicer
from chassis.clock import SystemClock
from chassis.ids import uuid7
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.metrics import Metrics
from chassis.outbox.relay import Relay
from chassis.service import Check, Service, Servicer

NAME = "catalog_svc"


def build(config: CatalogConfig) -> Service:
    metrics = Metrics(NAME)
    products = MongoProducts(config.mongodb_url, config.mongodb_driver)
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    servicer = CatalogServicer(products=products, clock=SystemClock(), new_id=uuid7)
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[products, nats],
        schema=products.check_schema,
        ready=[Check("mongodb", products.ready)],
        servicers=[Servicer(add_CatalogServiceServicer_to_server, servicer, "polymart.catalog.v1.CatalogService")],
        workers=[Relay(products.outbox, Publisher(nats), metrics, NAME)],
    )


async def migrate(config: CatalogConfig) -> None:
    """Make the indexes that this release needs."""
    products = MongoProducts(config.mongodb_url, config.mongodb_driver)
    try:
        await products.migrate()
    finally:
        await products.close()
