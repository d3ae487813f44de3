"""What the tests of search_svc share: products in a line, its peers, and the service seen from outside."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from polymart.catalog.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    taxonomy_service_pb2,
    taxonomy_service_pb2_grpc,
)
from polymart.catalog.v1.category_pb2 import Category
from polymart.catalog.v1.events_pb2 import CategoryChanged, ProductCreated, ProductDeleted, ProductUpdated
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ACTIVE
from polymart.catalog.v1.product_pb2 import Product as ProductMessage
from polymart.catalog.v1.product_pb2 import Variant as VariantMessage
from polymart.catalog.v1.product_type_pb2 import ProductType
from polymart.inventory.v1 import inventory_service_pb2, inventory_service_pb2_grpc
from polymart.inventory.v1.events_pb2 import StockAvailabilityChanged
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK, Availability
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed
from polymart.order.v1.order_pb2 import OrderLine
from polymart.search.v1 import search_service_pb2 as pb
from polymart.search.v1.search_service_pb2_grpc import SearchServiceStub

from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.topology import DLQ, TOPOLOGY
from chassis.money import Money
from chassis.service import RunningService, start
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from search_svc.adapters.popularity_documents import SALES
from search_svc.application.projection import apply_products
from search_svc.bootstrap import build
from search_svc.config import SearchConfig
from search_svc.domain.product import Product
from tests.conftest import until
from tests.consumers import in_hand

if TYPE_CHECKING:
    from polymart.search.v1.search_service_pb2_grpc import SearchServiceAsyncStub

LIMIT = 10.0
TOKEN_KEY = "a key of the tests, of enough characters"


def product(product_id: str, name: str = "Mug", *skus: str, version: int = 1, **fields: Any) -> ProductMessage:
    """As the catalog sends it. `price` is in pounds unless `currency` says otherwise, `attributes` are plain values."""
    price = Money.parse(fields.pop("currency", "GBP"), fields.pop("price", "2.50")).to_proto()
    untracked = fields.pop("untracked", False)
    attributes = fields.pop("attributes", {})
    fields.setdefault("status", PRODUCT_STATUS_ACTIVE)
    variants = [VariantMessage(sku=sku, price=price, untracked=untracked) for sku in skus or (f"sku-{product_id}",)]
    message = ProductMessage(product_id=product_id, name=name, version=version, variants=variants, **fields)
    for key, value in attributes.items():
        kind = "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        setattr(message.attributes[key], kind, value)
    return message


def updated(*products: ProductMessage) -> list[Message]:
    return [ProductUpdated(product=each) for each in products]


def deleted(product_id: str, version: int) -> Message:
    return ProductDeleted(product_id=product_id, version=version)


def placed(category_id: str, *path: str, version: int = 1) -> Message:
    return CategoryChanged(category=Category(category_id=category_id, path=path, path_version=version))


def stocked(sku: str, level: "Availability.ValueType" = AVAILABILITY_IN_STOCK, version: int = 1) -> Message:
    return StockAvailabilityChanged(sku=sku, availability=level, version=version)


def confirmed(order_id: str, **units: int) -> Message:
    """An order of so many units of each product."""
    lines = [OrderLine(sku=f"sku-{key}", product_id=key, quantity=quantity) for key, quantity in units.items()]
    return OrderConfirmed(order_id=order_id, lines=lines)


def cancelled(order_id: str) -> Message:
    return OrderCancelled(order_id=order_id)


class Peers(
    catalog_service_pb2_grpc.CatalogServiceServicer,
    taxonomy_service_pb2_grpc.TaxonomyServiceServicer,
    inventory_service_pb2_grpc.InventoryServiceServicer,
):
    """Catalog and inventory as their streams show them: what was `told` of them last, a few entries a response."""

    def __init__(self) -> None:
        self.address = ""
        self.products: dict[str, catalog_service_pb2.ProductState] = {}
        self.categories: dict[str, Category] = {}
        self.availability: dict[str, inventory_service_pb2.SkuAvailability] = {}
        self.types: list[ProductType] = []
        self.streams = 0
        self.breaks = 0  # so many streams of products yet to break off
        self.open = asyncio.Event()
        self.open.set()

    def told(self, *payloads: Message) -> None:
        for payload in payloads:
            match payload:
                case ProductCreated() | ProductUpdated():
                    state = catalog_service_pb2.ProductState(product=payload.product)
                    self.products[payload.product.product_id] = state
                case ProductDeleted():
                    tombstone = ProductMessage(product_id=payload.product_id, version=payload.version)
                    state = catalog_service_pb2.ProductState(product=tombstone, deleted=True)
                    self.products[payload.product_id] = state
                case CategoryChanged():
                    self.categories[payload.category.category_id] = payload.category
                case StockAvailabilityChanged():
                    self.availability[payload.sku] = inventory_service_pb2.SkuAvailability(
                        sku=payload.sku, availability=payload.availability, version=payload.version
                    )

    async def StreamProducts(
        self, request: catalog_service_pb2.StreamProductsRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[catalog_service_pb2.StreamProductsResponse]:
        assert request.include_deleted
        self.streams += 1
        after = request.resume_token.removeprefix("after ")
        while chunk := sorted(key for key in self.products if key > after)[:7]:
            await self.open.wait()
            after = chunk[-1]
            states = [self.products[key] for key in chunk]
            yield catalog_service_pb2.StreamProductsResponse(states=states, resume_token=f"after {after}")
            if self.breaks:
                self.breaks -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the service is stopping")

    async def ListCategories(
        self, request: taxonomy_service_pb2.ListCategoriesRequest, context: object
    ) -> taxonomy_service_pb2.ListCategoriesResponse:
        begin, known = int(request.page_token or 0), list(self.categories.values())
        following = str(begin + 3) if begin + 3 < len(known) else ""
        return taxonomy_service_pb2.ListCategoriesResponse(
            categories=known[begin : begin + 3], next_page_token=following
        )

    async def ListProductTypes(
        self, request: taxonomy_service_pb2.ListProductTypesRequest, context: object
    ) -> taxonomy_service_pb2.ListProductTypesResponse:
        return taxonomy_service_pb2.ListProductTypesResponse(product_types=self.types)

    async def StreamAvailability(
        self, request: inventory_service_pb2.StreamAvailabilityRequest, context: object
    ) -> AsyncIterator[inventory_service_pb2.StreamAvailabilityResponse]:
        levels = list(self.availability.values())
        for begin in range(0, len(levels), 7):
            yield inventory_service_pb2.StreamAvailabilityResponse(availabilities=levels[begin : begin + 7])


@asynccontextmanager
async def peers_serving() -> AsyncIterator[Peers]:
    peers, server = Peers(), grpc.aio.server()  # type: ignore[abstract]
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(peers, server)
    taxonomy_service_pb2_grpc.add_TaxonomyServiceServicer_to_server(peers, server)
    inventory_service_pb2_grpc.add_InventoryServiceServicer_to_server(peers, server)
    peers.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield peers
    await server.stop(0)


@dataclass
class Search:
    """A running service and its surroundings. `sent` are the messages published so far."""

    service: RunningService
    channel: grpc.aio.Channel
    stub: "SearchServiceAsyncStub"
    engine: Engine
    nats: Nats
    peers: Peers
    sent: list[Envelope] = field(default_factory=list)

    async def publish(self, *payloads: Message) -> list[Envelope]:
        """As the peers do: what they say in events, their streams say too."""
        self.peers.told(*payloads)
        return await self.publish_only(*payloads)

    async def publish_only(self, *payloads: Message) -> list[Envelope]:
        envelopes = []
        for payload in payloads:
            envelopes.append(Envelope.new(payload, aggregate_id=_about(payload), source="test"))
        await Publisher(self.nats).send(envelopes)
        self.sent += envelopes
        return envelopes

    async def handled(self) -> None:
        """Wait until every message is handled, and shown by searches."""
        await self.handled_but(0)

    async def handled_but(self, failing: int) -> None:
        """Wait until only so many messages are left, which are tried again later."""

        async def nothing_else() -> bool:
            return await self._waiting() == failing

        await until(nothing_else, 20)
        await self.engine.client.indices.refresh(index=PRODUCTS)

    async def _waiting(self) -> int:
        return await in_hand(self.nats, *TOPOLOGY.consumers_of("search_svc"))

    async def dead_letters(self) -> int:
        return (await self.nats.js.stream_info(DLQ)).state.messages

    async def find(self, text: str = "", **request: Any) -> pb.SearchProductsResponse:
        return await self.stub.SearchProducts(pb.SearchProductsRequest(text=text, **request), timeout=LIMIT)

    async def ids(self, text: str = "", **request: Any) -> list[str]:
        return [hit.product_id for hit in (await self.find(text, **request)).hits]

    async def trending(self, **request: Any) -> list[tuple[str, int]]:
        """What sells best, and the units."""
        await self.engine.client.indices.refresh(index=SALES)
        answer = await self.stub.ListTrendingProducts(pb.ListTrendingProductsRequest(**request), timeout=LIMIT)
        return [(each.product_id, each.units) for each in answer.products]

    async def status(self) -> pb.IndexStatus:
        return await self.stub.GetIndexStatus(pb.GetIndexStatusRequest(), timeout=LIMIT)

    async def serving(self) -> bool:
        answer = await HealthStub(self.channel).Check(HealthCheckRequest(), timeout=5)  # type: ignore[no-untyped-call]
        return bool(answer.status == HealthCheckResponse.SERVING)

    async def not_serving(self) -> bool:
        return not await self.serving()

    async def documents(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All that the engine holds of products, SKUs and categories."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for alias in (PRODUCTS, PARTS, CATEGORIES):
            await self.engine.client.indices.refresh(index=alias)
            answer = await self.engine.client.search(index=alias, size=1_000)
            found[alias] = {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
        return found

    async def close(self) -> None:
        await self.channel.close()
        await self.engine.close()
        await self.service.drain_and_stop()


def _about(payload: Any) -> str:
    match payload:
        case ProductCreated() | ProductUpdated():
            return str(payload.product.product_id)
        case CategoryChanged():
            return str(payload.category.category_id)
        case StockAvailabilityChanged():
            return str(payload.sku)
        case OrderConfirmed() | OrderCancelled():
            return str(payload.order_id)
    return str(payload.product_id)


async def search_service(url: str, nats: Nats, peers: Peers) -> Search:
    config = SearchConfig(
        elasticsearch_url=url,
        nats_url=nats._url,
        catalog_address=peers.address,
        inventory_address=peers.address,
        token_key=TOKEN_KEY,
        popularity_interval=0.1,
        drain_seconds=5,
    )
    service = await start(build(config))
    channel = grpc.aio.insecure_channel(service.address)
    engine = Engine(url)
    await engine.open()
    return Search(service, channel, SearchServiceStub(channel), engine, nats, peers)


async def filled(engine: Engine, products: Sequence[Product]) -> None:
    """Put products into the index as they are, and make them visible."""
    for index in await Indices(engine).targets():
        await apply_products(products, index=index)
    await engine.client.indices.refresh(index=PRODUCTS)


async def refusal(call: Awaitable[object]) -> tuple[str, set[str]]:
    """The code a call fails with, and the fields it names."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    fields: set[str] = set()
    if status := rpc_status.from_call(failure.value):  # type: ignore[no-untyped-call]
        for detail in status.details:
            bad = BadRequest()
            if detail.Unpack(bad):
                fields = {violation.field for violation in bad.field_violations}
    return failure.value.code().name, fields
