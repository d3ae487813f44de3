"""Products, categories and product types as polymart.catalog.v1 writes them."""

from collections.abc import Iterable

from google.type.money_pb2 import Money as MoneyMessage
from polymart.catalog.v1 import (
    catalog_service_pb2,
    category_pb2,
    events_pb2,
    product_pb2,
    product_type_pb2,
)

from catalog_svc.application.ports import SoldVariant
from catalog_svc.domain.category import Category
from catalog_svc.domain.product import (
    AttributeValue,
    Details,
    Kind,
    MediaLink,
    Product,
    ProductCreated,
    ProductDeleted,
    ProductEvent,
    ProductUpdated,
    Revision,
    Status,
    Stored,
    Tombstone,
    Variant,
    identity,
)
from catalog_svc.domain.product_type import Definition, ProductType
from catalog_svc.domain.product_type import Kind as AttributeKind
from catalog_svc.domain.rules import attribute_path
from chassis.errors import Violation
from chassis.messaging.envelope import Envelope
from chassis.money import Money

SOURCE = "catalog_svc"

EventMessage = events_pb2.ProductCreated | events_pb2.ProductUpdated | events_pb2.ProductDeleted

# Stands for a price that can't be read, which is a violation of its own.
_NO_PRICE = Money("", 0)

STATUSES = {
    Status.DRAFT: product_pb2.PRODUCT_STATUS_DRAFT,
    Status.ACTIVE: product_pb2.PRODUCT_STATUS_ACTIVE,
    Status.ARCHIVED: product_pb2.PRODUCT_STATUS_ARCHIVED,
}
STATUS_OF: dict[int, Status] = {message: status for status, message in STATUSES.items()}
_KINDS = {
    AttributeKind.TEXT: product_type_pb2.ATTRIBUTE_KIND_TEXT,
    AttributeKind.NUMBER: product_type_pb2.ATTRIBUTE_KIND_NUMBER,
    AttributeKind.BOOLEAN: product_type_pb2.ATTRIBUTE_KIND_BOOLEAN,
    AttributeKind.ENUM: product_type_pb2.ATTRIBUTE_KIND_ENUM,
}
_KIND_OF: dict[int, AttributeKind] = {message: kind for kind, message in _KINDS.items()}
_CHANGES = {
    Kind.CREATED: catalog_service_pb2.PRODUCT_CHANGE_CREATED,
    Kind.UPDATED: catalog_service_pb2.PRODUCT_CHANGE_UPDATED,
    Kind.DELETED: catalog_service_pb2.PRODUCT_CHANGE_DELETED,
}


def product_message(product: Product) -> product_pb2.Product:
    details = product.details
    message = product_pb2.Product(
        product_id=product.product_id,
        name=details.name,
        description=details.description,
        brand=details.brand,
        category_id=details.category_id,
        product_type_id=details.product_type_id,
        status=STATUSES[details.status],
        tags=details.tags,
        media=_link_messages(details.media),
        variants=[_variant_message(variant) for variant in details.variants],
        tax_class=details.tax_class,
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
        product_status=STATUSES[sold.product_status],
        variant=_variant_message(sold.variant),
        tax_class=sold.tax_class,
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


def category_message(category: Category, path: tuple[str, ...]) -> category_pb2.Category:
    message = category_pb2.Category(
        category_id=category.category_id,
        parent_id=category.parent_id,
        name=category.name,
        path=path,
        path_version=category.path_version,
        etag=category.etag,
    )
    message.create_time.FromDatetime(category.create_time)
    message.update_time.FromDatetime(category.update_time)
    return message


def category_envelope(category: Category) -> Envelope:
    """The news that a category has the path it holds."""
    message = events_pb2.CategoryChanged(category=category_message(category, category.path))
    return Envelope.new(message, aggregate_id=category.category_id, source=SOURCE)


def type_message(type_: ProductType) -> product_type_pb2.ProductType:
    message = product_type_pb2.ProductType(
        product_type_id=type_.product_type_id,
        name=type_.name,
        attributes=[
            product_type_pb2.AttributeDefinition(
                name=definition.name,
                kind=_KINDS[definition.kind or AttributeKind.TEXT],
                unit=definition.unit,
                values=definition.values,
                required=definition.required,
                facet=definition.facet,
                searchable=definition.searchable,
            )
            for definition in type_.definitions
        ],
        etag=type_.etag,
    )
    message.create_time.FromDatetime(type_.create_time)
    message.update_time.FromDatetime(type_.update_time)
    return message


def read_definitions(message: product_type_pb2.ProductType) -> tuple[Definition, ...]:
    """A kind that isn't known here is none."""
    return tuple(
        Definition(
            name=definition.name,
            kind=_KIND_OF.get(definition.kind),
            unit=definition.unit,
            values=tuple(definition.values),
            required=definition.required,
            facet=definition.facet,
            searchable=definition.searchable,
        )
        for definition in message.attributes
    )


def revision_message(revision: Revision) -> catalog_service_pb2.ProductRevision:
    message = catalog_service_pb2.ProductRevision(
        version=revision.version, actor=revision.by, change=_CHANGES[revision.kind], paths=revision.changed
    )
    message.time.FromDatetime(revision.time)
    return message


def read_details(message: product_pb2.Product) -> tuple[Details, list[Violation]]:
    """What a message says about a product, and what in it can't be read: prices that are missing or none,
    attributes without a value, a status that isn't known."""
    faults: list[Violation] = []
    details = Details(
        name=message.name,
        description=message.description,
        brand=message.brand,
        category_id=message.category_id,
        product_type_id=message.product_type_id,
        status=_status(message, faults),
        tags=tuple(message.tags),
        media=_links(message.media),
        attributes={name: _attribute(name, value, faults) for name, value in message.attributes.items()},
        variants=tuple(
            _variant(variant, f"variants[{position}]", faults) for position, variant in enumerate(message.variants)
        ),
        tax_class=message.tax_class,
    )
    return details, faults


def _status(message: product_pb2.Product, faults: list[Violation]) -> Status:
    if message.status and message.status not in STATUS_OF:
        faults.append(Violation("status", "is not a known status"))
    return STATUS_OF.get(message.status, Status.ACTIVE)


def _variant(message: product_pb2.Variant, path: str, faults: list[Violation]) -> Variant:
    if not message.HasField("price"):
        faults.append(Violation(f"{path}.price", "is required"))
    price = _money(message.price, f"{path}.price", faults) if message.HasField("price") else None
    listed = _money(message.list_price, f"{path}.list_price", faults) if message.HasField("list_price") else None
    return Variant(
        sku=message.sku,
        price=price or _NO_PRICE,
        eans=tuple(message.eans),
        name=message.name,
        untracked=message.untracked,
        options=dict(message.options),
        list_price=listed,
        media=_links(message.media),
    )


def _money(message: MoneyMessage, path: str, faults: list[Violation]) -> Money | None:
    try:
        return Money.from_proto(message)
    except ValueError as error:
        faults.append(Violation(path, str(error)))
        return None


def _links(messages: Iterable[product_pb2.MediaLink]) -> tuple[MediaLink, ...]:
    return tuple(MediaLink(message.uri, message.alt_text) for message in messages)


def _link_messages(links: Iterable[MediaLink]) -> list[product_pb2.MediaLink]:
    return [product_pb2.MediaLink(uri=link.uri, alt_text=link.alt_text) for link in links]


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
        options=variant.options,
        list_price=variant.list_price.to_proto() if variant.list_price else None,
        media=_link_messages(variant.media),
    )
