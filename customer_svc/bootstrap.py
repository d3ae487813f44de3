"""Where customer_svc's parts meet."""

from polymart.customer.v1.customer_service_pb2_grpc import add_CustomerServiceServicer_to_server
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from polymart.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis import postgres
from chassis.clock import SystemClock
from chassis.ids import uuid7
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.metrics import Metrics
from chassis.outbox.postgres import PostgresOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, schema_check
from chassis.rpc.client import RpcClient
from chassis.service import Check, Service, Servicer
from customer_svc.adapters.grpc_records import GrpcRecords
from customer_svc.adapters.postgres_customers import PostgresCustomers
from customer_svc.config import CustomerConfig
from customer_svc.entrypoints.grpc import CustomerServicer

NAME = "customer_svc"


def build(config: CustomerConfig) -> Service:
    metrics = Metrics(NAME)
    db, nats = Postgres(config.postgres_url, name=NAME), Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    outbox = PostgresOutbox(db)
    orders = RpcClient(config.order_address, OrderServiceStub) if config.order_address else None
    told = RpcClient(config.notification_address, NotificationServiceStub) if config.notification_address else None
    servicer = CustomerServicer(
        customers=PostgresCustomers(db, outbox),
        others=GrpcRecords(orders, told),
        clock=SystemClock(),
        new_id=uuid7,
    )
    return Service(
        name=NAME,
        config=config,
        metrics=metrics,
        resources=[db, nats, *(peer for peer in (orders, told) if peer is not None)],
        schema=schema_check(db, NAME),
        ready=[Check("postgresql", db.ready)],
        servicers=[Servicer(add_CustomerServiceServicer_to_server, servicer, "polymart.customer.v1.CustomerService")],
        workers=[Relay(outbox, Publisher(nats), metrics, NAME)],
    )


async def migrate(config: CustomerConfig) -> None:
    """Bring the database to the schema of this release."""
    await postgres.migrate(config.postgres_url, NAME)
