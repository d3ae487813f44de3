"""Where catalog_svc's parts meet."""

from polymart.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from polymart.catalog.v1.taxonomy_service_pb2_grpc import add_TaxonomyServiceServicer_to_server

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from catalog_svc.config import CatalogConfig
from catalog_svc.entrypoints.grpc import CatalogServicer
from catalog_svc.entrypoints.paths import PathTeller
from catalog_svc.entrypoints.taxonomy_grpc import TaxonomyServicer
from chassis.clock import SystemClock
from chassis.errors import Unavailable
from chassis.ids import uuid7
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.metrics import Metrics
from chassis.outbox.joined import JoinedOutbox
from chassis.outbox.relay import Relay
from chassis.service import Check, Service, Servicer

NAME = "catalog_svc"
# A row of an import that is far too long is still answered as a row.
MAX_REQUEST_BYTES = 16 * 1024 * 1024


def build(config: CatalogConfig) -> Service:
    metrics, clock = Metrics(NAME), SystemClock()
    mongo = Mongo(config.mongodb_url, config.mongodb_driver)
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    products, taxonomy = MongoProducts(mongo), MongoTaxonomy(mongo)
    catalog = CatalogServicer(
        products=products, taxonomy=taxonomy, clock=clock, new_id=uuid7, token_key=config.token_key
    )
    ordering = TaxonomyServicer(taxonomy=taxonomy, clock=clock, new_id=uuid7, token_key=config.token_key)

    async def check_schema() -> None:
        if missing := [*await products.missing(), *await taxonomy.missing()]:
            raise Unavailable(
                f"the store lacks {', '.join(missing)}; run `python -m catalog_svc migrate`", reason="SCHEMA_PENDING"
            )

    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[mongo, nats],
        schema=check_schema,
        max_request_bytes=MAX_REQUEST_BYTES,
        ready=[Check("mongodb", mongo.ready)],
        servicers=[
            Servicer(add_CatalogServiceServicer_to_server, catalog, "polymart.catalog.v1.CatalogService"),
            Servicer(add_TaxonomyServiceServicer_to_server, ordering, "polymart.catalog.v1.TaxonomyService"),
        ],
        workers=[
            Relay(JoinedOutbox(taxonomy.outbox, products.outbox), Publisher(nats), metrics, NAME),
            PathTeller(taxonomy),
        ],
    )


async def migrate(config: CatalogConfig) -> None:
    """Make what this release needs of the store."""
    mongo = Mongo(config.mongodb_url, config.mongodb_driver)
    try:
        await MongoProducts(mongo).migrate()
        await MongoTaxonomy(mongo).migrate()
    finally:
        await mongo.close()
