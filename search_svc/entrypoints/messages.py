"""What the service reacts to."""

from collections.abc import Mapping, Sequence

from google.protobuf.message import Message
from polymart.catalog.v1.events_pb2 import CategoryChanged, ProductCreated, ProductDeleted, ProductUpdated
from polymart.inventory.v1.events_pb2 import StockAvailabilityChanged
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed

from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from search_svc.application.lag import ProjectionLag
from search_svc.application.popularity import Window
from search_svc.application.ports import Sales, Targets
from search_svc.application.projection import (
    apply_availability,
    apply_categories,
    apply_everywhere,
    apply_products,
    record_sales,
)
from search_svc.domain.product import Product
from search_svc.protos import (
    availability_from_proto,
    category_from_proto,
    product_from_proto,
    sale_from_envelope,
    tombstone,
)


async def index_products(messages: Sequence[Envelope], *, tx: Targets) -> None:
    products = [_product(message.payload) for message in messages]
    await apply_everywhere(lambda index: apply_products(products, index=index), targets=tx)


async def index_categories(messages: Sequence[Envelope], *, tx: Targets) -> None:
    news = []
    for message in messages:
        payload = message.payload
        assert isinstance(payload, CategoryChanged)
        news.append(category_from_proto(payload.category))
    await apply_everywhere(lambda index: apply_categories(news, index=index), targets=tx)


async def index_availability(messages: Sequence[Envelope], *, tx: Targets) -> None:
    news = []
    for message in messages:
        payload = message.payload
        assert isinstance(payload, StockAvailabilityChanged)
        news.append((payload.sku, availability_from_proto(payload.availability, payload.version)))
    await apply_everywhere(lambda index: apply_availability(news, index=index), targets=tx)


HANDLERS: Mapping[type[Message], Handler[Targets]] = {
    ProductCreated: index_products,
    ProductUpdated: index_products,
    ProductDeleted: index_products,
    CategoryChanged: index_categories,
    StockAvailabilityChanged: index_availability,
}


def sales_handlers(window: Window) -> Mapping[type[Message], Handler[Sales]]:
    """The rest of the table: what is kept apart from the product index."""

    async def note_sales(messages: Sequence[Envelope], *, tx: Sales) -> None:
        await record_sales(map(sale_from_envelope, messages), orders=tx.orders, since=window.start)

    return {OrderConfirmed: note_sales, OrderCancelled: note_sales}


def _product(payload: Message) -> Product:
    match payload:
        case ProductCreated() | ProductUpdated():
            return product_from_proto(payload.product)
        case ProductDeleted():
            return tombstone(payload.product_id, payload.version)
    raise TypeError(f"{type(payload).__name__} says nothing about a product")


def measured(
    handlers: Mapping[type[Message], Handler[Targets]], lag: ProjectionLag
) -> Mapping[type[Message], Handler[Targets]]:
    """The same handlers, which tell `lag` what they have in hand."""

    def telling(handler: Handler[Targets]) -> Handler[Targets]:
        async def handle(messages: Sequence[Envelope], *, tx: Targets) -> None:
            with lag.applying(handler, [(message.type, message.time) for message in messages]):
                await handler(messages, tx=tx)

        return handle

    # One for one, as messages of several types may be one batch of the same handler.
    told = {handler: telling(handler) for handler in handlers.values()}
    return {kind: told[handler] for kind, handler in handlers.items()}
