"""What the service reacts to."""

from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message
from polymart.catalog.v1.events_pb2 import ProductCreated, ProductDeleted, ProductUpdated
from polymart.catalog.v1.product_pb2 import PRODUCT_STATUS_ACTIVE
from polymart.inventory.v1.events_pb2 import (
    StockCommitted,
    StockRejected,
    StockReleased,
    StockReserved,
    StockRestocked,
)
from polymart.payment.v1.events_pb2 import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentRefundFailed,
    PaymentVoided,
)

from chassis.clock import Clock
from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import Handler
from chassis.money import Money
from chassis.postgres import Transaction
from order_svc.application import advancing, pricing
from order_svc.application.ports import ChangeableOrders, PriceUpdates, ProductState
from order_svc.domain import messages as m
from order_svc.domain.pricing import Offer

Reactions = Mapping[type[Message], Handler[Transaction]]


def reactions(
    orders: ChangeableOrders[Transaction, Envelope], prices: PriceUpdates[Transaction], clock: Clock
) -> Reactions:
    """The table."""

    async def advance_orders(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        told = [advancing.Told(*_reply(envelope.payload), envelope) for envelope in messages]
        await advancing.advance_orders(told, orders=orders, clock=clock, tx=tx)

    async def update_prices(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        await pricing.update_prices([_product(envelope.payload) for envelope in messages], prices=prices, tx=tx)

    return {
        StockReserved: advance_orders,
        StockRejected: advance_orders,
        StockCommitted: advance_orders,
        StockReleased: advance_orders,
        PaymentAuthorized: advance_orders,
        PaymentDeclined: advance_orders,
        PaymentCaptured: advance_orders,
        PaymentCaptureFailed: advance_orders,
        PaymentVoided: advance_orders,
        StockRestocked: advance_orders,
        PaymentRefunded: advance_orders,
        PaymentRefundFailed: advance_orders,
        ProductCreated: update_prices,
        ProductUpdated: update_prices,
        ProductDeleted: update_prices,
    }


def _shortages(message: StockRejected) -> m.StockRejected:
    return m.StockRejected(tuple(m.Shortage(s.sku, s.wanted, s.available) for s in message.shortages))


def _voided(message: PaymentVoided) -> m.PaymentVoided:
    return m.PaymentVoided(Money.from_proto(message.refunded) if message.HasField("refunded") else None)


_STOCK: Mapping[type[Message], Callable[..., m.Reply]] = {
    StockReserved: lambda _: m.StockReserved(),
    StockRejected: _shortages,
    StockCommitted: lambda _: m.StockCommitted(),
    StockReleased: lambda _: m.StockReleased(),
    StockRestocked: lambda message: m.StockRestocked(message.operation_id),
}
_PAYMENT: Mapping[type[Message], Callable[..., m.Reply]] = {
    PaymentAuthorized: lambda _: m.PaymentAuthorized(),
    PaymentDeclined: lambda message: m.PaymentDeclined(message.reason),
    PaymentCaptured: lambda _: m.PaymentCaptured(),
    PaymentCaptureFailed: lambda message: m.PaymentCaptureFailed(message.reason),
    PaymentVoided: _voided,
    PaymentRefunded: lambda message: m.PaymentRefunded(message.operation_id, Money.from_proto(message.amount)),
    PaymentRefundFailed: lambda message: m.PaymentRefundFailed(message.operation_id, message.reason),
}


def _reply(message: Message) -> tuple[str, m.Reply]:
    """The order's id and what it is told. A payment has the id of its order."""
    if stock := _STOCK.get(type(message)):
        return message.order_id, stock(message)  # type: ignore[attr-defined]
    return message.payment_id, _PAYMENT[type(message)](message)  # type: ignore[attr-defined]


def _product(message: Message) -> ProductState:
    if isinstance(message, ProductDeleted):
        return ProductState(message.product_id, message.version, ())
    assert isinstance(message, ProductCreated | ProductUpdated)
    product = message.product
    return ProductState(
        product.product_id,
        product.version,
        tuple(
            Offer(
                sku=variant.sku,
                product_id=product.product_id,
                product_version=product.version,
                product_name=product.name,
                price=Money.from_proto(variant.price),
                untracked=variant.untracked,
                tax_class=product.tax_class,
            )
            for variant in product.variants
            if product.status == PRODUCT_STATUS_ACTIVE
        ),
    )
