"""Where adapters meet use cases: the service as a parts list."""

from datetime import timedelta

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
from search_svc.adapters.elastic_sales import ElasticSales
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.elastic_search_log import ElasticSearchLog
from search_svc.adapters.elastic_shown import ElasticShownProducts
from search_svc.adapters.elastic_suggest import ElasticSuggestions
from search_svc.adapters.elastic_visibility import ElasticVisibility
from search_svc.adapters.engine import Engine
from search_svc.adapters.grpc_product_types import GrpcProductTypes
from search_svc.adapters.grpc_sources import GrpcSources
from search_svc.adapters.indices import Indices
from search_svc.adapters.order_history import OrderHistory
from search_svc.adapters.synonyms_file import SynonymsFile
from search_svc.application.freshness import Freshness
from search_svc.application.lag import ProjectionLag
from search_svc.application.popularity import Window
from search_svc.application.ports import Sales, Targets
from search_svc.application.search_log import SearchCounts
from search_svc.config import SearchConfig
from search_svc.domain.synonyms import Synonyms
from search_svc.entrypoints.grpc import SearchServicer
from search_svc.entrypoints.keeper import IndexKeeper
from search_svc.entrypoints.messages import HANDLERS, measured, sales_handlers
from search_svc.entrypoints.operation import Operation
from search_svc.entrypoints.periodic import Periodic
from search_svc.entrypoints.popularity import PopularityKeeper
from search_svc.entrypoints.trending import TrendingLister

NAME = "search_svc"

# The engine's work is by the request as much as by the document.
_BATCH = 1_000
# Seconds. What was searched for is lost with a process that is killed, if it wasn't written yet.
_FLUSH = 5.0
_REFRESH = 60.0


def build(config: SearchConfig) -> Service:
    metrics = Metrics(NAME)
    engine = Engine(config.elasticsearch_url, config.access)
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    catalog = RpcClient(config.catalog_address, CatalogServiceStub)
    taxonomy = RpcClient(config.catalog_address, TaxonomyServiceStub)
    inventory = RpcClient(config.inventory_address, InventoryServiceStub)
    indices, suggestions, holder = Indices(engine), ElasticSuggestions(engine), uuid7()
    searches = SearchCounts(ElasticSearchLog(engine, writer=uuid7()), SystemClock())
    types = GrpcProductTypes(taxonomy)
    keeper = IndexKeeper(holder=holder, generations=indices, sources=GrpcSources(catalog, taxonomy, inventory))
    sales, window = ElasticSales(engine), Window(timedelta(hours=config.popularity_hours), SystemClock())
    consumers = {consumer.stream: consumer for consumer in TOPOLOGY.consumers_of(NAME)}
    orders = consumers.pop("EVT_ORDER")
    popularity = PopularityKeeper(
        holder=holder,
        sales=sales,
        history=OrderHistory(nats, orders),
        targets=indices,
        window=window,
        interval=config.popularity_interval,
    )
    trending = TrendingLister(
        sales=sales, targets=indices, products=ElasticShownProducts(engine), window=window, token_key=config.token_key
    )
    synonyms = SynonymsFile(config.synonyms_file) if config.synonyms_file else Synonyms
    index = ElasticProductSearch(engine, indices, lambda: types.known, synonyms)
    lag = ProjectionLag(SystemClock(), metrics.projected)
    metrics.watch_projection(lambda: lag.seconds)
    handlers = measured(HANDLERS, lag)
    # Documents carry versions, so a message may come again.
    inbox: NoInbox[Targets] = NoInbox(indices)
    subscriptions = [
        Subscription(nats, consumer, handlers, inbox, metrics, batch=_BATCH) for consumer in consumers.values()
    ]
    taken: NoInbox[Sales] = NoInbox(sales)
    sold = Subscription(nats, orders, sales_handlers(window), taken, metrics, batch=_BATCH)
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
                    trending,
                    operation=Operation(index, indices, lag),
                    freshness=Freshness(ElasticVisibility(engine, indices)),
                    completions=suggestions,
                    spelling=suggestions,
                    searches=searches,
                    token_key=config.token_key,
                ),
                "polymart.search.v1.SearchService",
            )
        ],
        workers=[
            # The first, so that what the last searches asked for is written, too.
            Periodic("search log", _FLUSH, searches.flush, last=True),
            Periodic("popular searches", _REFRESH, searches.tidy, searches.refresh),
            Periodic("product types", _REFRESH, types.refresh),
            keeper,
            *subscriptions,
            sold,
            popularity,
        ],
    )


async def migrate(config: SearchConfig) -> None:
    """Create the indices of this release, empty, where there are none; a running service fills them."""
    engine = Engine(config.elasticsearch_url, config.access)
    await engine.open()
    try:
        await Indices(engine).migrate()
    finally:
        await engine.close()
