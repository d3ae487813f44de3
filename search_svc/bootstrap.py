"""Where adapters meet use cases: the service as a parts list."""

from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceStub
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub
from polymart.search.v1.search_service_pb2_grpc import add_SearchServiceServicer_to_server

from chassis.clock import SystemClock
from chassis.ids import uuid7
from chassis.inbox.port import NoInbox
from chassis.messaging.nats import Nats
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY
from chassis.metrics import Metrics
from chassis.rpc.client import RpcClient
from chassis.service import Check, Service, Servicer
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.elastic_visibility import ElasticVisibility
from search_svc.adapters.engine import Engine
from search_svc.adapters.grpc_sources import GrpcSources
from search_svc.adapters.indices import Indices
from search_svc.application.freshness import Freshness
from search_svc.application.lag import ProjectionLag
from search_svc.application.ports import Targets
from search_svc.config import SearchConfig
from search_svc.entrypoints.grpc import SearchServicer
from search_svc.entrypoints.keeper import IndexKeeper
from search_svc.entrypoints.messages import HANDLERS, measured
from search_svc.entrypoints.operation import Operation

NAME = "search_svc"

# The engine's work is by the request as much as by the document.
_BATCH = 1_000


def build(config: SearchConfig) -> Service:
    metrics = Metrics(NAME)
    engine = Engine(config.elasticsearch_url, config.access)
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    catalog = RpcClient(config.catalog_address, CatalogServiceStub)
    taxonomy = RpcClient(config.catalog_address, TaxonomyServiceStub)
    inventory = RpcClient(config.inventory_address, InventoryServiceStub)
    indices = Indices(engine)
    index = ElasticProductSearch(engine, indices)
    keeper = IndexKeeper(holder=uuid7(), generations=indices, sources=GrpcSources(catalog, taxonomy, inventory))
    lag = ProjectionLag(SystemClock(), metrics.projected)
    metrics.watch_projection(lambda: lag.seconds)
    handlers = measured(HANDLERS, lag)
    # Documents carry versions, so a message may come again.
    inbox: NoInbox[Targets] = NoInbox(indices)
    subscriptions = [
        Subscription(nats, consumer, handlers, inbox, metrics, batch=_BATCH) for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[engine, nats, catalog, taxonomy, inventory],
        ready=[Check("index", indices.ready)],
        servicers=[
            Servicer(
                add_SearchServiceServicer_to_server,
                SearchServicer(
                    index,
                    operation=Operation(index, indices, lag),
                    freshness=Freshness(ElasticVisibility(engine, indices)),
                    token_key=config.token_key,
                ),
                "polymart.search.v1.SearchService",
            )
        ],
        workers=[keeper, *subscriptions],
    )


async def migrate(config: SearchConfig) -> None:
    """Create the indices of this release, empty, where there are none; a running service fills them."""
    engine = Engine(config.elasticsearch_url, config.access)
    await engine.open()
    try:
        await Indices(engine).migrate()
    finally:
        await engine.close()
