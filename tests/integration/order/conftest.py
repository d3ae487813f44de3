"""A database of the service's own, and the service among doubles of its peers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage
from nats.aio.msg import Msg
from polymart.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ACTIVE, Product, Variant
from polymart.inventory.v1 import commands_pb2 as stock
from polymart.inventory.v1.events_pb2 import StockCommitted, StockReleased, StockReserved, StockRestocked
from polymart.order.v1 import (
    order_pb2,
    order_service_pb2,
    order_service_pb2_grpc,
    shipment_pb2,
    shipment_service_pb2,
    shipment_service_pb2_grpc,
)
from polymart.payment.v1 import commands_pb2 as payment
from polymart.payment.v1.events_pb2 import PaymentAuthorized, PaymentCaptured, PaymentRefunded, PaymentVoided

from chassis.clock import Clock
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.messaging.topology import COMMANDS
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, migrate
from chassis.rpc.errors import translated
from chassis.service import RunningService, start
from order_svc.adapters.postgres_orders import PostgresOrders
from order_svc.adapters.postgres_prices import PostgresPrices
from order_svc.bootstrap import build
from order_svc.config import OrderConfig

ANSWERS: Mapping[type[Message], Callable[[Any], Message | None]] = {
    stock.ReserveStock: lambda command: StockReserved(order_id=command.order_id),
    stock.CommitStock: lambda command: StockCommitted(order_id=command.order_id),
    stock.ReleaseStock: lambda command: StockReleased(order_id=command.order_id),
    stock.RestockStock: lambda command: StockRestocked(order_id=command.order_id, operation_id=command.operation_id),
    payment.RefundPayment: lambda command: PaymentRefunded(
        payment_id=command.payment_id, operation_id=command.operation_id, amount=command.amount
    ),
    payment.AuthorizePayment: lambda command: PaymentAuthorized(payment_id=command.payment_id),
    payment.CapturePayment: lambda command: PaymentCaptured(payment_id=command.payment_id),
    payment.VoidPayment: lambda command: PaymentVoided(payment_id=command.payment_id),
}


@pytest.fixture
async def database_url(database: str) -> str:
    await migrate(database, "order_svc")
    return database


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Postgres]:
    db = Postgres(database_url)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
def orders(db: Postgres) -> PostgresOrders:
    return PostgresOrders(db, PostgresOutbox(db), relay=lambda: None, changed=lambda _: None)


@pytest.fixture
def prices(db: Postgres) -> PostgresPrices:
    return PostgresPrices(db)


class CatalogDouble(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Knows `products`; counts how often it was asked."""

    def __init__(self) -> None:
        self.products: dict[str, Product] = {}
        self.asked = 0

    def sells(self, sku: str, price: str = "2.50", *, version: int = 1, **more: Any) -> Product:
        units, _, cents = price.partition(".")
        money = MoneyMessage(currency_code=more.pop("currency", "GBP"), units=int(units), nanos=int(cents) * 10**7)
        product = Product(
            product_id=f"p-{sku}",
            name=sku.title(),
            version=version,
            status=more.pop("status", PRODUCT_STATUS_ACTIVE),
            variants=[Variant(sku=sku, price=money, **more)],
        )
        self.products[sku] = product
        return product

    async def BatchGetVariants(
        self, request: catalog_service_pb2.BatchGetVariantsRequest, context: object
    ) -> catalog_service_pb2.BatchGetVariantsResponse:
        self.asked += 1
        found = [self.products[sku] for sku in request.skus if sku in self.products]
        return catalog_service_pb2.BatchGetVariantsResponse(
            variants=[
                catalog_service_pb2.ProductVariant(
                    product_id=p.product_id,
                    product_version=p.version,
                    product_name=p.name,
                    product_status=p.status,
                    variant=p.variants[0],
                    tax_class=p.tax_class,
                )
                for p in found
            ]
        )


@dataclass
class Shop:
    """order_svc in this process, with stock and payment played by `answers`."""

    database_url: str
    nats: Nats
    catalog: CatalogDouble
    catalog_address: str
    catalog_server: grpc.aio.Server
    answers: dict[type[Message], Callable[[Any], Message | None]] = field(default_factory=lambda: dict(ANSWERS))
    commands: list[Envelope] = field(default_factory=list)
    replies: list[Envelope] = field(default_factory=list)
    closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def open(self, *, clock: Clock | None = None, nats_url: str = "", **settings: Any) -> "Replica":
        config = OrderConfig(
            postgres_url=self.database_url,
            nats_url=nats_url or self.nats._url,
            catalog_address=self.catalog_address,
            drain_seconds=5,
            **settings,
        )
        service = await start(build(config, clock=clock))
        self.closing.push_async_callback(service.drain_and_stop)
        await service.ready()
        channel = await self.closing.enter_async_context(grpc.aio.insecure_channel(service.address))
        shipments = shipment_service_pb2_grpc.ShipmentServiceStub(channel)
        return Replica(service, order_service_pb2_grpc.OrderServiceStub(channel), shipments)

    async def publish(self, payload: Message, aggregate_id: str, cause: Envelope | None = None) -> Envelope:
        envelope = Envelope.new(payload, aggregate_id=aggregate_id, source="test", cause=cause)
        await self.nats.js.publish(envelope.subject, envelope.data, headers=envelope.headers())
        return envelope

    def asked(self, order_id: str) -> list[str]:
        """The commands that came for an order, by name."""
        return [c.payload.DESCRIPTOR.name for c in self.commands if c.aggregate_id == order_id]

    async def answer(self, message: Msg) -> None:
        command = Envelope.decode(message.subject, message.headers, message.data)
        self.commands.append(command)
        if reply := self.answers[type(command.payload)](command.payload):
            self.replies.append(await self.publish(reply, command.aggregate_id, cause=command))
        await message.ack()

    async def answer_commands(self, durable: str) -> None:
        pull = await self.nats.js.pull_subscribe_bind(durable, stream=COMMANDS)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.gather(*map(self.answer, await pull.fetch(100, timeout=1)))


@dataclass
class Replica:
    service: RunningService
    stub: Any
    shipments: Any

    async def call(self, method: str, request: Message, timeout: float = 5) -> Any:
        """Raises the error of chassis.errors that the status says."""
        stub = self.stub if hasattr(self.stub, method) else self.shipments
        with translated("order_svc"):
            return await getattr(stub, method)(request, timeout=timeout)

    async def ship(self, order_id: str, *units: tuple[int, int], **fields: Any) -> shipment_pb2.Shipment:
        request = shipment_service_pb2.CreateShipmentRequest(
            **{"request_id": str(uuid4()), "operator": "bob", **fields}, order_id=order_id, lines=units_of(*units)
        )
        shipment: shipment_pb2.Shipment = await self.call("CreateShipment", request)
        return shipment

    async def arrived(self, shipment_id: str) -> shipment_pb2.Shipment:
        request = shipment_service_pb2.MarkShipmentDeliveredRequest(shipment_id=shipment_id, operator="bob")
        shipment: shipment_pb2.Shipment = await self.call("MarkShipmentDelivered", request)
        return shipment

    async def take_back(self, order_id: str, *units: tuple[int, int], **fields: Any) -> order_pb2.Order:
        request = order_service_pb2.ReturnOrderLinesRequest(
            **{"request_id": str(uuid4()), "operator": "bob", **fields}, order_id=order_id, lines=units_of(*units)
        )
        order: order_pb2.Order = await self.call("ReturnOrderLines", request)
        return order

    async def place(self, *lines: tuple[str, int], **fields: Any) -> order_pb2.Order:
        order: order_pb2.Order = await self.call("PlaceOrder", place_request(*lines, **fields))
        return order

    async def get(self, order_id: str) -> order_pb2.Order:
        order: order_pb2.Order = await self.call("GetOrder", order_service_pb2.GetOrderRequest(order_id=order_id))
        return order

    async def cancel(self, order_id: str, **fields: Any) -> order_pb2.Order:
        request = order_service_pb2.CancelOrderRequest(order_id=order_id, **fields)
        order: order_pb2.Order = await self.call("CancelOrder", request)
        return order

    async def watch(self, order_id: str, after: int = 0, timeout: float = 15) -> AsyncIterator[order_pb2.Order]:
        request = order_service_pb2.WatchOrderRequest(order_id=order_id, after_version=after)
        with translated("order_svc"):
            async for order in self.stub.WatchOrder(request, timeout=timeout):
                yield order

    async def final(self, order_id: str) -> order_pb2.Order:
        """The order once it is settled."""
        states = [order async for order in self.watch(order_id)]
        assert states[-1].settled
        return states[-1]


def units_of(*units: tuple[int, int]) -> list[order_pb2.OrderUnits]:
    """Of (line number, quantity)."""
    return [order_pb2.OrderUnits(line_number=line, quantity=quantity) for line, quantity in units]


def place_request(*lines: tuple[str, int], **fields: Any) -> order_service_pb2.PlaceOrderRequest:
    return order_service_pb2.PlaceOrderRequest(
        **{"request_id": str(uuid4()), "payment_token": "tok_approved", **fields},
        lines=[order_service_pb2.PlaceOrderLine(sku=sku, quantity=quantity) for sku, quantity in lines],
    )


@pytest.fixture
async def shop(database_url: str, fresh_nats: Nats) -> AsyncIterator[Shop]:
    catalog = CatalogDouble()
    server = grpc.aio.server()
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    shop = Shop(database_url, fresh_nats, catalog, f"127.0.0.1:{port}", server)
    peers = [asyncio.create_task(shop.answer_commands(durable)) for durable in ("inventory_svc-CMD", "payment_svc-CMD")]
    yield shop
    await shop.closing.aclose()
    for peer in peers:
        peer.cancel()
    await asyncio.gather(*peers, return_exceptions=True)
    await server.stop(0)
