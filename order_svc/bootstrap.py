"""Where adapters meet use cases: the service as a parts list."""

from datetime import timedelta
from functools import partial

from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from polymart.order.v1.cart_service_pb2_grpc import add_CartServiceServicer_to_server
from polymart.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from polymart.order.v1.shipment_service_pb2_grpc import add_ShipmentServiceServicer_to_server

from chassis.clock import Clock, SystemClock
from chassis.ids import uuid7
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.hints import NatsHints, last_token
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.messaging.topology import TOPOLOGY
from chassis.metrics import Metrics
from chassis.outbox.postgres import PostgresOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, schema_check
from chassis.postgres import migrate as apply_migrations
from chassis.rpc.client import RpcClient
from chassis.service import Check, Service, Servicer
from order_svc.adapters.charges_file import read_charges
from order_svc.adapters.grpc_catalog import BATCH_GET_VARIANTS, GrpcCatalog
from order_svc.adapters.postgres_carts import PostgresCarts
from order_svc.adapters.postgres_orders import PostgresOrders
from order_svc.adapters.postgres_prices import PostgresPrices
from order_svc.adapters.postgres_shipments import PostgresShipments
from order_svc.adapters.rebuild import PostgresReadModel
from order_svc.application.advancing import ask_again, change_order, expire_orders
from order_svc.application.carts import CartDesk
from order_svc.application.placing import Terms
from order_svc.application.watching import OrderWatch
from order_svc.config import OrderConfig
from order_svc.entrypoints.carts_grpc import CartServicer
from order_svc.entrypoints.deadlines import Deadlines
from order_svc.entrypoints.grpc import OrderServicer
from order_svc.entrypoints.messages import reactions
from order_svc.entrypoints.shipments import ShipmentServicer

NAME = "order_svc"


def build(config: OrderConfig, *, clock: Clock | None = None) -> Service:
    clock = clock or SystemClock()
    metrics = Metrics(NAME)
    db, nats = Postgres(config.postgres_url, name=NAME), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    catalog = RpcClient(config.catalog_address, CatalogServiceStub, idempotent=[BATCH_GET_VARIANTS])
    variants = GrpcCatalog(catalog)
    terms = Terms(read_charges(config.order_charges_file), timedelta(seconds=config.order_deadline_seconds))
    outbox = PostgresOutbox(db)
    relay = Relay(outbox, Publisher(nats), metrics, name=NAME)
    watch = OrderWatch()
    orders = PostgresOrders(db, outbox, relay=relay.nudge, changed=watch.changed)
    watch.reads(orders)
    prices = PostgresPrices(db)
    handlers = reactions(orders, prices, clock)
    subscriptions = [
        Subscription(nats, consumer, handlers, PostgresInbox(db), metrics) for consumer in TOPOLOGY.consumers_of(NAME)
    ]
    servicer = OrderServicer(
        orders=orders,
        read_model=PostgresReadModel(db),
        prices=prices,
        catalog=variants,
        watch=watch,
        clock=clock,
        new_id=uuid7,
        terms=terms,
    )
    carts = CartDesk(
        carts=PostgresCarts(db),
        orders=orders,
        prices=prices,
        catalog=variants,
        clock=clock,
        new_id=uuid7,
        terms=terms,
        life=timedelta(seconds=config.cart_expiry_seconds),
    )
    change = partial(change_order, orders=orders, clock=clock)
    shipments = ShipmentServicer(change, orders, PostgresShipments(db), uuid7)
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[db, nats, catalog],
        schema=schema_check(db, NAME),
        ready=[Check("postgresql", db.ready)],
        servicers=[
            Servicer(add_OrderServiceServicer_to_server, servicer, "polymart.order.v1.OrderService"),
            Servicer(add_CartServiceServicer_to_server, CartServicer(carts), "polymart.order.v1.CartService"),
            Servicer(add_ShipmentServiceServicer_to_server, shipments, "polymart.order.v1.ShipmentService"),
        ],
        workers=[
            relay,
            *subscriptions,
            Deadlines("order deadlines", partial(expire_orders, orders=orders, clock=clock), interval=1),
            Deadlines("stalled orders", partial(ask_again, orders=orders, clock=clock), interval=60),
            Deadlines("expired carts", carts.expire, interval=60),
            watch,
            NatsHints(nats, "evt.order.>", watch, last_token),
        ],
    )


async def migrate(config: OrderConfig) -> None:
    """Bring the database to this release's schema."""
    await apply_migrations(config.postgres_url, NAME)
