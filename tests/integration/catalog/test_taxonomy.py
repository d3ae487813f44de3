"""TaxonomyService over gRPC, MongoDB's protocol and NATS: categories move, and products and events follow."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from polymart.catalog.v1 import catalog_service_pb2, taxonomy_service_pb2
from polymart.catalog.v1.category_pb2 import Category
from polymart.catalog.v1.events_pb2 import CategoryChanged
from polymart.catalog.v1.product_type_pb2 import (
    ATTRIBUTE_KIND_ENUM,
    ATTRIBUTE_KIND_NUMBER,
    ATTRIBUTE_KIND_TEXT,
    AttributeDefinition,
    ProductType,
)

from catalog_svc.config import CatalogConfig
from tests.integration.catalog.support import Catalog, faults, product, refusal

LIMIT = 10.0


async def create(catalog: Catalog, category_id: str, parent_id: str = "", name: str = "") -> Category:
    category = Category(category_id=category_id, parent_id=parent_id, name=name or category_id.title())
    request = taxonomy_service_pb2.CreateCategoryRequest(category=category)
    return await catalog.taxonomy.CreateCategory(request, timeout=LIMIT)


async def get(catalog: Catalog, category_id: str) -> Category:
    request = taxonomy_service_pb2.GetCategoryRequest(category_id=category_id)
    return await catalog.taxonomy.GetCategory(request, timeout=LIMIT)


async def update(catalog: Catalog, *paths: str, **fields: Any) -> Category:
    request = taxonomy_service_pb2.UpdateCategoryRequest(
        category=Category(**fields), update_mask=FieldMask(paths=paths)
    )
    return await catalog.taxonomy.UpdateCategory(request, timeout=LIMIT)


async def listed(catalog: Catalog, size: int = 50, **request: Any) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    token = ""
    while True:
        page = await catalog.taxonomy.ListCategories(
            taxonomy_service_pb2.ListCategoriesRequest(page_size=size, page_token=token, **request), timeout=LIMIT
        )
        assert len(page.categories) <= size
        found += [tuple(category.path) for category in page.categories]
        if not (token := page.next_page_token):
            return found


async def in_category(catalog: Catalog, category_id: str) -> list[str]:
    which = catalog_service_pb2.ProductFilter(category_id=category_id)
    request = catalog_service_pb2.ListProductsRequest(filter=which)
    return [p.product_id for p in (await catalog.stub.ListProducts(request, timeout=LIMIT)).products]


async def told(catalog: Catalog) -> list[tuple[str, tuple[str, ...]]]:
    """What was published about categories, in order of their versions."""
    news = [event.category for event in await catalog.published() if isinstance(event, CategoryChanged)]
    return [(c.category_id, tuple(c.path)) for c in sorted(news, key=lambda c: (c.path_version, c.category_id))]


async def test_a_subtree_moves_by_one_write_and_its_paths_are_told(catalog: Catalog) -> None:
    for category_id, parent_id in (("home", ""), ("lamps", "home"), ("desk", "lamps"), ("office", "")):
        await create(catalog, category_id, parent_id)
    for product_id, category_id in (("p", "desk"), ("q", "lamps"), ("r", "office")):
        given = catalog_service_pb2.CreateProductRequest(product=product(product_id, category_id=category_id))
        await catalog.stub.CreateProduct(given, timeout=LIMIT)
    assert await in_category(catalog, "home") == ["p", "q"]
    assert sorted(await told(catalog)) == [
        ("desk", ("Home", "Lamps", "Desk")), ("home", ("Home",)), ("lamps", ("Home", "Lamps")), ("office", ("Office",)),
    ]  # fmt: skip
    moved = await update(catalog, category_id="lamps", parent_id="office")
    assert list(moved.path) == ["Office", "Lamps"]
    assert await in_category(catalog, "home") == []
    assert await in_category(catalog, "office") == ["p", "q", "r"]
    assert sorted((await told(catalog))[4:]) == [("desk", ("Office", "Lamps", "Desk")), ("lamps", ("Office", "Lamps"))]
    desk = await get(catalog, "desk")
    assert list(desk.path) == ["Office", "Lamps", "Desk"]
    # Nothing of the product was written.
    found = await catalog.stub.GetProduct(catalog_service_pb2.GetProductRequest(product_id="p"), timeout=LIMIT)
    assert found.version == 1


async def test_categories_are_listed_by_path_page_by_page(catalog: Catalog) -> None:
    for category_id, parent_id in (("b", ""), ("a", ""), ("c", "b"), ("d", "c"), ("e", "b")):
        await create(catalog, category_id, parent_id)
    paths = [("A",), ("B",), ("B", "C"), ("B", "C", "D"), ("B", "E")]
    assert await listed(catalog) == await listed(catalog, 2) == paths
    assert await listed(catalog, 1, ancestor_id="b") == paths[2:]
    request = taxonomy_service_pb2.ListCategoriesRequest(ancestor_id="none")
    assert (await refusal(catalog.taxonomy.ListCategories(request, timeout=LIMIT)))[1] == "CATEGORY_NOT_FOUND"


async def test_what_cannot_be_done_to_a_category_is_told(catalog: Catalog) -> None:
    lamps = await create(catalog, "lamps")
    await create(catalog, "desk", "lamps")
    calls: list[tuple[Awaitable[object], tuple[str, str, set[str]]]] = [
        (create(catalog, "x" * 129, name=" "), ("INVALID_ARGUMENT", "INVALID_ARGUMENT",
            {"category.name", "category.category_id"})),
        (update(catalog, "name", "path", category_id="lamps"), ("INVALID_ARGUMENT", "INVALID_ARGUMENT",
            {"category.name", "update_mask.paths[1]"})),
        (create(catalog, "lamps"), ("ALREADY_EXISTS", "CATEGORY_EXISTS", set())),
        (create(catalog, "other", name="Lamps"), ("ALREADY_EXISTS", "CATEGORY_NAME_TAKEN", set())),
        (create(catalog, "other", "none"), ("NOT_FOUND", "CATEGORY_NOT_FOUND", set())),
        (get(catalog, "none"), ("NOT_FOUND", "CATEGORY_NOT_FOUND", set())),
        (update(catalog, category_id="lamps", parent_id="desk"), ("FAILED_PRECONDITION", "CATEGORY_CYCLE", set())),
        (update(catalog, category_id="lamps", name="L", etag="old"), ("ABORTED", "STALE_ETAG", set())),
    ]  # fmt: skip
    for call, expected in calls:
        assert await refusal(call) == expected
    unchanged = await update(catalog, category_id="lamps", name="Lamps")
    # Its path may have been told meanwhile.
    unchanged.path_version = lamps.path_version
    assert unchanged == lamps
    renamed = await update(catalog, category_id="lamps", name="Lights", etag=lamps.etag)
    assert (list(renamed.path), renamed.etag != lamps.etag) == (["Lights"], True)


async def test_two_moves_at_once_through_two_replicas_make_no_cycle(
    start_catalog: Callable[..., Awaitable[Catalog]], config: CatalogConfig
) -> None:
    one, other = await start_catalog(config), await start_catalog(config)
    for category_id in "abcd":
        await create(one, category_id)
    for _ in range(5):
        moves = [
            update(replica, "parent_id", category_id=child, parent_id=parent)
            for replica, child, parent in ((one, "a", "b"), (other, "b", "c"), (one, "c", "d"), (other, "d", "a"))
        ]
        results = await asyncio.gather(*moves, return_exceptions=True)
        refused = [faults(r)[:2] for r in results if isinstance(r, grpc.aio.AioRpcError)]
        assert refused == [("FAILED_PRECONDITION", "CATEGORY_CYCLE")]
        assert sorted(map(len, await listed(other))) == [1, 2, 3, 4]
        for category_id in "abcd":
            await update(other, "parent_id", category_id=category_id, parent_id="")
    # What was told ends as the tree is, whichever replica told it.
    last = dict(await told(one))
    assert last == {category_id: (category_id.upper(),) for category_id in "abcd"}


async def test_a_product_type_is_made_changed_and_held_to(catalog: Catalog) -> None:
    taxonomy = catalog.taxonomy
    height = AttributeDefinition(name="height", kind=ATTRIBUTE_KIND_NUMBER, unit="mm", required=True)
    bad = ProductType(
        name="",
        attributes=[
            AttributeDefinition(name="height", kind=ATTRIBUTE_KIND_TEXT, unit="mm", values=["a"]),
            AttributeDefinition(name="height", kind=ATTRIBUTE_KIND_ENUM),
            AttributeDefinition(name=" ", kind=ATTRIBUTE_KIND_ENUM, values=["a", "a", ""]),
            AttributeDefinition(name="none"),
        ],
    )
    request = taxonomy_service_pb2.CreateProductTypeRequest(product_type=bad)
    assert (await refusal(taxonomy.CreateProductType(request, timeout=LIMIT)))[2] == {
        f"product_type.{path}" for path in (
            "name", "attributes[0].unit", "attributes[0].values", "attributes[1].name", "attributes[1].values",
            "attributes[2].name", "attributes[2].values[1]", "attributes[2].values[2]", "attributes[3].kind",
        )
    }  # fmt: skip
    cup = ProductType(product_type_id="cup", name="Cup", attributes=[height])
    request = taxonomy_service_pb2.CreateProductTypeRequest(product_type=cup)
    made = await taxonomy.CreateProductType(request, timeout=LIMIT)
    assert list(made.attributes) == [height]
    assert (await refusal(taxonomy.CreateProductType(request, timeout=LIMIT)))[1] == "PRODUCT_TYPE_EXISTS"
    by_id = taxonomy_service_pb2.GetProductTypeRequest(product_type_id="cup")
    assert await taxonomy.GetProductType(by_id, timeout=LIMIT) == made

    given = product("p", product_type_id="cup")
    new = catalog_service_pb2.CreateProductRequest(product=given)
    assert (await refusal(catalog.stub.CreateProduct(new, timeout=LIMIT)))[2] == {'product.attributes["height"]'}
    new.product.attributes["height"].number = 90
    await catalog.stub.CreateProduct(new, timeout=LIMIT)
    change = taxonomy_service_pb2.UpdateProductTypeRequest(
        product_type=ProductType(product_type_id="cup", attributes=[height, AttributeDefinition(
            name="colour", kind=ATTRIBUTE_KIND_ENUM, values=["red"], required=True)], etag=made.etag)
    )  # fmt: skip
    changed = await taxonomy.UpdateProductType(change, timeout=LIMIT)
    assert (changed.name, len(changed.attributes)) == ("Cup", 2)
    assert (await refusal(taxonomy.UpdateProductType(change, timeout=LIMIT)))[1] == "STALE_ETAG"
    # A product that was good before is held to the type where it is written next.
    rename = catalog_service_pb2.UpdateProductRequest(product=product("p", name="Big cup"))
    rename.update_mask.paths.append("name")
    await catalog.stub.UpdateProduct(rename, timeout=LIMIT)
    rename.update_mask.paths[:] = ["attributes.height"]
    rename.product.attributes["height"].number = 120
    assert (await refusal(catalog.stub.UpdateProduct(rename, timeout=LIMIT)))[2] == {'product.attributes["colour"]'}


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_product_types_are_listed_by_id(catalog: Catalog, size: int) -> None:
    for type_id in ("c", "a", "b"):
        type_ = ProductType(product_type_id=type_id, name="T")
        request = taxonomy_service_pb2.CreateProductTypeRequest(product_type=type_)
        await catalog.taxonomy.CreateProductType(request, timeout=LIMIT)
    found: list[str] = []
    token = ""
    while True:
        page = await catalog.taxonomy.ListProductTypes(
            taxonomy_service_pb2.ListProductTypesRequest(page_size=size, page_token=token), timeout=LIMIT
        )
        found += [type_.product_type_id for type_ in page.product_types]
        if not (token := page.next_page_token):
            break
    assert found == ["a", "b", "c"]
