"""Products, categories, availability and sales as other services send them."""

from collections import Counter
from collections.abc import Iterable, Iterator

from polymart.catalog.v1 import category_pb2, product_pb2
from polymart.inventory.v1 import stock_pb2
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed

from chassis.messaging.envelope import Envelope
from chassis.money import Money
from search_svc.domain.popularity import Sale, Sold
from search_svc.domain.product import AttributeValue, Availability, Category, Product, SkuAvailability, Variant

_LEVELS = {
    Availability.IN_STOCK: stock_pb2.AVAILABILITY_IN_STOCK,
    Availability.LOW: stock_pb2.AVAILABILITY_LOW,
    Availability.OUT: stock_pb2.AVAILABILITY_OUT,
}
_AVAILABILITY: dict[int, Availability] = {level: availability for availability, level in _LEVELS.items()}


def product_from_proto(message: product_pb2.Product) -> Product:
    """Raises ValueError for a price that isn't an amount of money."""
    return Product(
        product_id=message.product_id,
        version=message.version,
        name=message.name,
        description=message.description,
        brand=message.brand,
        active=message.status == product_pb2.PRODUCT_STATUS_ACTIVE,
        category=Category(message.category_id),
        tags=tuple(message.tags),
        attributes=dict(_attributes(message)),
        variants=tuple(_variants(message.variants)),
        created=message.create_time.ToMicroseconds(),
    )


def category_from_proto(message: category_pb2.Category) -> Category:
    return Category(message.category_id, tuple(message.path), message.path_version)


def tombstone(product_id: str, version: int) -> Product:
    return Product(product_id, version, deleted=True)


def availability_from_proto(level: int, version: int) -> SkuAvailability:
    """Raises ValueError for a level that isn't known here."""
    if level not in _AVAILABILITY:
        raise ValueError(f"availability {level} is not known")
    return SkuAvailability(_AVAILABILITY[level], version)


def availabilities_from_proto(levels: Iterable[int]) -> tuple[Availability, ...]:
    """Raises ValueError for a level that isn't known here."""
    return tuple(availability_from_proto(level, 0).level for level in levels)


def sale_from_envelope(envelope: Envelope) -> Sale:
    """Raises TypeError for a message that says nothing about a sale."""
    time = int(envelope.time.timestamp() * 1000)
    match message := envelope.payload:
        case OrderConfirmed():
            return Sale(message.order_id, confirmed=time, lines=tuple(_lines(message)))
        case OrderCancelled():
            return Sale(message.order_id, cancelled=time)
    raise TypeError(f"{envelope.type} says nothing about a sale")


def availability_to_proto(availability: Availability) -> "stock_pb2.Availability.ValueType":
    return _LEVELS[availability]


def attribute_to_proto(value: AttributeValue) -> product_pb2.AttributeValue:
    if isinstance(value, bool):
        return product_pb2.AttributeValue(flag=value)
    if isinstance(value, float):
        return product_pb2.AttributeValue(number=value)
    return product_pb2.AttributeValue(text=value)


def _attributes(message: product_pb2.Product) -> Iterator[tuple[str, AttributeValue]]:
    for name, value in message.attributes.items():
        if kind := value.WhichOneof("kind"):
            yield name, getattr(value, kind)


def _variants(messages: Iterable[product_pb2.Variant]) -> Iterator[Variant]:
    for message in messages:
        yield Variant(
            sku=message.sku,
            price=Money.from_proto(message.price),
            name=message.name,
            eans=tuple(message.eans),
            untracked=message.untracked,
            options=dict(message.options),
        )


def _lines(message: OrderConfirmed) -> Iterator[Sold]:
    units = Counter[tuple[str, str]]()
    for line in message.lines:
        units[(line.product_id, "") if line.product_id else ("", line.sku)] += line.quantity
    for (product_id, sku), quantity in sorted(units.items()):
        yield Sold(product_id, sku, quantity)
