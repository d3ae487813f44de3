"""Products as polymart.catalog.v1 writes them."""

from polymart.catalog.v1 import catalog_service_pb2, events_pb2, product_pb2

from catalog_svc.application.ports import SoldVariant
from catalog_svc.domain.product import (
    AttributeValue,
    Details,
    Product,
    ProductCreated,
    ProductDeleted,
    ProductEvent,
    ProductUpdated,
    Stored,
    Tombstone,
    Variant,
    attribute_path,
    identity,
)
from chassis.errors import Violation
from chassis.messaging.envelope import Envelope
from chassis.money import Money

SOURCE = "catalog_svc"

EventMessage = events_pb2.ProductCreated | events_pb2.ProductUpdated | events_pb2.ProductDeleted

# Stands for a price that can't be read, which is a violation of its own.
_NO_PRICE = Money("XXX", 0)


def product_message(product: Product) -> product_pb2.Product:
    details = product.details
    message = product_pb2.Product(
        product_id=product.product_id,
        name=details.name,
        description=details.description,
        brand=details.brand,
        category_path=details.category_path,
        variants=[_variant_message(variant) for variant in details.variants],
        etag=product.etag,
        version=product.version,
    )
    for name, value in details.attributes.items():
        _set_attribute(message.attributes[name], value)
    message.create_time.FromDatetime(product.create_time)
    message.update_time.FromDatetime(product.update_time)
    return message


def state_message(stored: Stored) -> catalog_service_pb2.ProductState:
    if isinstance(stored, Tombstone):
        remains = product_pb2.Product(product_id=stored.product_id, version=stored.version)
        return catalog_service_pb2.ProductState(product=remains, deleted=True)
    return catalog_service_pb2.ProductState(product=product_message(stored))


def sold_variant_message(sold: SoldVariant) -> catalog_service_pb2.ProductVariant:
    return catalog_service_pb2.ProductVariant(
        product_id=sold.product_id,
        product_version=sold.product_version,
        product_name=sold.product_name,
        variant=_variant_message(sold.variant),
    )


def event_message(event: ProductEvent) -> EventMessage:
    match event:
        case ProductCreated(product):
            return events_pb2.ProductCreated(product=product_message(product))
        case ProductUpdated(product):
            return events_pb2.ProductUpdated(product=product_message(product))
        case ProductDeleted(product_id, version):
            return events_pb2.ProductDeleted(product_id=product_id, version=version)


def envelope(event: ProductEvent) -> Envelope:
    product_id, _ = identity(event)
    return Envelope.new(event_message(event), aggregate_id=product_id, source=SOURCE)


def read_details(message: product_pb2.Product) -> tuple[Details, list[Violation]]:
    """What a message says about a product, and what in it can't be read: prices that are missing or none,
    attributes without a value."""
    faults: list[Violation] = []
    details = Details(
        name=message.name,
        description=message.description,
        brand=message.brand,
        category_path=tuple(message.category_path),
        attributes={name: _attribute(name, value, faults) for name, value in message.attributes.items()},
        variants=tuple(
            Variant(
                sku=variant.sku,
                price=_price(variant, f"variants[{position}].price", faults),
                eans=tuple(variant.eans),
                name=variant.name,
                untracked=variant.untracked,
            )
            for position, variant in enumerate(message.variants)
        ),
    )
    return details, faults


def _price(variant: product_pb2.Variant, path: str, faults: list[Violation]) -> Money:
    if not variant.HasField("price"):
        faults.append(Violation(path, "is required"))
        return _NO_PRICE
    try:
        return Money.from_proto(variant.price)
    except ValueError as error:
        faults.append(Violation(path, str(error)))
        return _NO_PRICE


def _attribute(name: str, value: product_pb2.AttributeValue, faults: list[Violation]) -> AttributeValue:
    match value.WhichOneof("kind"):
        case "text":
            return value.text
        case "number":
            return value.number
        case "flag":
            return value.flag
    faults.append(Violation(attribute_path(name), "must have a value: text, number or flag"))
    return ""


def _set_attribute(message: product_pb2.AttributeValue, value: AttributeValue) -> None:
    match value:
        case bool():
            message.flag = value
        case str():
            message.text = value
        case float() | int():
            message.number = value


def _variant_message(variant: Variant) -> product_pb2.Variant:
    return product_pb2.Variant(
        sku=variant.sku,
        price=variant.price.to_proto(),
        eans=variant.eans,
        name=variant.name,
        untracked=variant.untracked,
    )
