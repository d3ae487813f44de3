"""Products, categories and product types as documents of MongoDB, and back without loss."""

from typing import Any

from bson import Int64

from catalog_svc.application.ports import SoldVariant
from catalog_svc.domain.category import Category
from catalog_svc.domain.product import (
    Details,
    Kind,
    MediaLink,
    Product,
    ProductDeleted,
    ProductEvent,
    Revision,
    Status,
    Stored,
    Tombstone,
    Variant,
)
from catalog_svc.domain.product_type import Definition, ProductType
from catalog_svc.domain.product_type import Kind as AttributeKind
from chassis.money import Money

Document = dict[str, Any]

CONTENT = (
    "etag", "created", "updated", "name", "description", "brand", "category_id", "product_type_id", "status", "tags",
    "media", "attributes", "variants", "skus", "tax_class",
)  # fmt: skip
"""The fields that a deleted product hasn't."""


def product_fields(event: ProductEvent) -> Document:
    """The fields that the event leaves behind, all but `_id`, revisions and outbox."""
    if isinstance(event, ProductDeleted):
        return {"version": Int64(event.version), "deleted": True}
    product, details = event.product, event.product.details
    return {
        "version": Int64(product.version),
        "etag": product.etag,
        "deleted": False,
        "created": product.create_time,
        "updated": product.update_time,
        "name": details.name,
        "description": details.description,
        "brand": details.brand,
        "category_id": details.category_id,
        "product_type_id": details.product_type_id,
        "status": details.status.value,
        "tags": list(details.tags),
        "media": _links_to_documents(details.media),
        "attributes": {escaped(name): value for name, value in details.attributes.items()},
        "variants": [_variant_to_document(variant) for variant in details.variants],
        "skus": list(details.skus),
        "tax_class": details.tax_class,
    }


def stored_from(document: Document) -> Stored:
    if document["deleted"]:
        return Tombstone(document["_id"], int(document["version"]))
    return product_from(document)


def product_from(document: Document) -> Product:
    return Product(
        product_id=document["_id"],
        version=int(document["version"]),
        etag=document["etag"],
        create_time=document["created"],
        update_time=document["updated"],
        details=Details(
            name=document["name"],
            description=document["description"],
            brand=document["brand"],
            category_id=document["category_id"],
            product_type_id=document["product_type_id"],
            status=Status(document["status"]),
            tags=tuple(document["tags"]),
            media=_links_from(document["media"]),
            attributes={unescaped(name): value for name, value in document["attributes"].items()},
            variants=tuple(map(variant_from, document["variants"])),
            tax_class=document.get("tax_class", ""),
        ),
    )


def sold_from(document: Document, variant: Document) -> SoldVariant:
    return SoldVariant(
        product_id=document["_id"],
        product_version=int(document["version"]),
        product_name=document["name"],
        product_status=Status(document["status"]),
        variant=variant_from(variant),
        tax_class=document.get("tax_class", ""),
    )


def revision_to_document(revision: Revision) -> Document:
    return {
        "version": Int64(revision.version),
        "time": revision.time,
        "by": revision.by,
        "kind": revision.kind.value,
        "changed": list(revision.changed),
    }


def revision_from(document: Document) -> Revision:
    return Revision(
        version=int(document["version"]),
        time=document["time"],
        by=document["by"],
        kind=Kind(document["kind"]),
        changed=tuple(document["changed"]),
    )


def _variant_to_document(variant: Variant) -> Document:
    return {
        "sku": variant.sku,
        "price": _money_to_document(variant.price),
        "list_price": _money_to_document(variant.list_price) if variant.list_price else None,
        "eans": list(variant.eans),
        "name": variant.name,
        "untracked": variant.untracked,
        "options": {escaped(name): value for name, value in variant.options.items()},
        "media": _links_to_documents(variant.media),
    }


def variant_from(document: Document) -> Variant:
    return Variant(
        sku=document["sku"],
        price=_money_from(document["price"]),
        list_price=_money_from(document["list_price"]) if document["list_price"] else None,
        eans=tuple(document["eans"]),
        name=document["name"],
        untracked=document["untracked"],
        options={unescaped(name): value for name, value in document["options"].items()},
        media=_links_from(document["media"]),
    )


def _money_to_document(money: Money) -> Document:
    return {"currency": money.currency, "nanos": Int64(money.nanos)}


def _money_from(document: Document) -> Money:
    return Money(document["currency"], int(document["nanos"]))


def _links_to_documents(links: tuple[MediaLink, ...]) -> list[Document]:
    return [{"uri": link.uri, "alt_text": link.alt_text} for link in links]


def _links_from(documents: list[Document]) -> tuple[MediaLink, ...]:
    return tuple(MediaLink(document["uri"], document["alt_text"]) for document in documents)


def category_to_document(category: Category) -> Document:
    """All but `path` and `path_version`, which follow."""
    return {
        "_id": category.category_id,
        "parent_id": category.parent_id,
        "name": category.name,
        "version": Int64(category.version),
        "etag": category.etag,
        "created": category.create_time,
        "updated": category.update_time,
    }


def category_from(document: Document) -> Category:
    return Category(
        category_id=document["_id"],
        parent_id=document["parent_id"],
        name=document["name"],
        version=int(document["version"]),
        etag=document["etag"],
        create_time=document["created"],
        update_time=document["updated"],
        path=tuple(document["path"]),
        path_version=int(document["path_version"]),
    )


def type_to_document(type_: ProductType) -> Document:
    return {
        "_id": type_.product_type_id,
        "version": Int64(type_.version),
        "etag": type_.etag,
        "name": type_.name,
        "attributes": [_definition_to_document(definition) for definition in type_.definitions],
        "created": type_.create_time,
        "updated": type_.update_time,
    }


def _definition_to_document(definition: Definition) -> Document:
    assert definition.kind
    return {
        "name": definition.name,
        "kind": definition.kind.value,
        "unit": definition.unit,
        "values": list(definition.values),
        "required": definition.required,
        "facet": definition.facet,
        "searchable": definition.searchable,
    }


def type_from(document: Document) -> ProductType:
    return ProductType(
        product_type_id=document["_id"],
        name=document["name"],
        definitions=tuple(
            Definition(**{**entry, "kind": AttributeKind(entry["kind"]), "values": tuple(entry["values"])})
            for entry in document["attributes"]
        ),
        version=int(document["version"]),
        etag=document["etag"],
        create_time=document["created"],
        update_time=document["updated"],
    )


# Dots and dollars mean something in a query or an update, and a NUL ends a BSON key.
_ESCAPES = {"%": "%25", ".": "%2E", "$": "%24", "\0": "%00"}


def escaped(name: str) -> str:
    for character, escape in _ESCAPES.items():
        name = name.replace(character, escape)
    return name


def unescaped(name: str) -> str:
    for character, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, character)
    return name
