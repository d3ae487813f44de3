"""Requests repeated, parts of products changed, histories, filters and streams that go on, over gRPC."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.product_pb2 import (
    PRODUCT_STATUS_ACTIVE,
    PRODUCT_STATUS_ARCHIVED,
    PRODUCT_STATUS_DRAFT,
    MediaLink,
    Product,
)

from chassis.consistency import METADATA, ConsistencyToken
from tests.integration.catalog.support import TOKEN_KEY, Catalog, product, refusal

LIMIT = 10.0


async def create(catalog: Catalog, given: Product, **request: Any) -> Product:
    return await catalog.stub.CreateProduct(messages.CreateProductRequest(product=given, **request), timeout=LIMIT)


async def update(catalog: Catalog, given: Product, *paths: str, actor: str = "") -> Product:
    request = messages.UpdateProductRequest(product=given, update_mask=FieldMask(paths=paths))
    metadata = (("polymart-actor", actor),) if actor else ()
    return await catalog.stub.UpdateProduct(request, timeout=LIMIT, metadata=metadata)


async def listed(catalog: Catalog, size: int = 50, **request: Any) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        asked = messages.ListProductsRequest(page_size=size, page_token=token, **request)
        page = await catalog.stub.ListProducts(asked, timeout=LIMIT)
        found += [p.product_id for p in page.products]
        if not (token := page.next_page_token):
            return found


async def test_a_creation_that_is_repeated_creates_one_product(catalog: Catalog) -> None:
    request_id = str(uuid4())
    first = await create(catalog, product("", "a"), request_id=request_id)
    assert await create(catalog, product("", "a"), request_id=request_id) == first
    reused = await refusal(create(catalog, product("", "b"), request_id=request_id))
    assert reused[:2] == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert (await refusal(create(catalog, product("", "b"), request_id="no uuid")))[2] == {"request_id"}
    assert len(await catalog.published()) == 1


@pytest.mark.parametrize("product_id", ["", "p"])
async def test_a_creation_that_is_sent_many_times_at_once_creates_one_product(
    catalog: Catalog, product_id: str
) -> None:
    request_id = str(uuid4())
    same = await asyncio.gather(*(create(catalog, product(product_id, "a"), request_id=request_id) for _ in range(20)))
    assert all(answer == same[0] for answer in same)
    assert len(await catalog.published()) == 1


async def test_parts_of_a_product_are_changed(catalog: Catalog) -> None:
    given = product("p", "a", "b")
    given.attributes["colour"].text, given.attributes["old"].flag = "blue", True
    await create(catalog, given)
    change = Product(product_id="p")
    change.attributes["colour"].text = "red"
    change.variants.add(sku="b").options["size"] = "XL"
    change.variants[0].list_price.CopyFrom(given.variants[0].price)
    change.variants.add(sku="c").price.CopyFrom(given.variants[0].price)
    paths = ["attributes.colour", "attributes.old", "variants.b.options", "variants.b.list_price", "variants.c"]
    after = await update(catalog, change, *paths)
    assert {name: value.text for name, value in after.attributes.items()} == {"colour": "red"}
    assert [(v.sku, dict(v.options), v.HasField("list_price")) for v in after.variants] == [
        ("a", {}, False), ("b", {"size": "XL"}, True), ("c", {}, False),
    ]  # fmt: skip
    assert after.variants[1].price == given.variants[1].price
    # What the mask names must be good, what it doesn't name isn't looked at.
    bad = Product(product_id="p")
    bad.variants.add(sku="b")
    bad.variants[0].media.append(MediaLink(uri="nowhere"))
    assert (await update(catalog, bad, "variants.b.name")).version == 2
    assert (await refusal(update(catalog, bad, "variants.b")))[2] == {"product.variants[0].price"}
    assert (await refusal(update(catalog, bad, "variants.b.media")))[2] == {"product.variants[1].media[0].uri"}
    assert (await refusal(update(catalog, bad, "variants.b.media", "variants.x.y", "name.z")))[2] == {
        "update_mask.paths[1]", "update_mask.paths[2]",
    }  # fmt: skip


async def test_who_changed_what_is_told(catalog: Catalog) -> None:
    await create(catalog, product("p", "a"))
    changed = product("p", "a", name="Cup", status=PRODUCT_STATUS_ARCHIVED)
    await update(catalog, changed, "*", actor="ann@shop.example")
    await catalog.stub.DeleteProduct(messages.DeleteProductRequest(product_id="p"), timeout=LIMIT)
    request = messages.ListProductRevisionsRequest(product_id="p")
    found = (await catalog.stub.ListProductRevisions(request, timeout=LIMIT)).revisions
    assert [(r.version, r.actor, r.change, list(r.paths)) for r in found] == [
        (3, "", messages.PRODUCT_CHANGE_DELETED, []),
        (2, "ann@shop.example", messages.PRODUCT_CHANGE_UPDATED, ["name", "status"]),
        (1, "", messages.PRODUCT_CHANGE_CREATED, []),
    ]
    assert all(r.time.seconds > 1_700_000_000 for r in found)
    request = messages.ListProductRevisionsRequest(product_id="never")
    assert (await refusal(catalog.stub.ListProductRevisions(request, timeout=LIMIT)))[1] == "PRODUCT_NOT_FOUND"


async def test_products_are_listed_by_filter_and_order(catalog: Catalog) -> None:
    made = [await create(catalog, product(f"p{n}", status=n % 3 + 1, brand="AB"[n % 2])) for n in range(6)]
    await update(catalog, product("p1", name="Cup"), "name")
    everything = [f"p{n}" for n in range(6)]
    assert await listed(catalog) == await listed(catalog, 2) == everything
    drafts, active = messages.ProductFilter(status=PRODUCT_STATUS_DRAFT), PRODUCT_STATUS_ACTIVE
    assert await listed(catalog, filter=drafts) == ["p0", "p3"]
    assert await listed(catalog, filter=messages.ProductFilter(status=active, brand="B")) == ["p1"]
    # Times are of the millisecond, in which several may have been made: ids break the tie.
    times = {p.product_id: p.update_time.ToNanoseconds() for p in made} | {"p1": 2**63}
    by_time = sorted(everything, key=lambda key: (times[key], key))
    for order, expected in (
        (messages.PRODUCT_ORDER_UPDATE_TIME, by_time), (messages.PRODUCT_ORDER_UPDATE_TIME_DESC, by_time[::-1]),
    ):  # fmt: skip
        for size in (1, 2, 50):
            assert await listed(catalog, size, order=order) == expected
    since = messages.ProductFilter(updated_since=made[3].update_time)
    assert set(await listed(catalog, filter=since)) == {k for k in everything if times[k] >= times["p3"]}
    late = Timestamp()
    late.FromNanoseconds(made[5].update_time.ToNanoseconds() + 60 * 10**9)
    assert await listed(catalog, filter=messages.ProductFilter(updated_since=late)) == []
    bad: list[tuple[dict[str, Any], str]] = [
        ({"filter": messages.ProductFilter(status=9)}, "filter.status"),  # type: ignore[arg-type]
        ({"order": 9}, "order"),
        ({"filter": messages.ProductFilter(updated_since=Timestamp(seconds=10**15))}, "filter.updated_since"),
    ]
    for request, field in bad:
        assert (await refusal(listed(catalog, **request)))[2] == {field}
    missing = messages.ProductFilter(category_id="none")
    assert (await refusal(listed(catalog, filter=missing)))[1] == "CATEGORY_NOT_FOUND"


async def streamed(catalog: Catalog, token: str = "") -> AsyncIterator[messages.StreamProductsResponse]:
    request = messages.StreamProductsRequest(include_deleted=True, resume_token=token)
    async for response in catalog.stub.StreamProducts(request):
        yield response


async def test_a_stream_that_breaks_off_goes_on_where_it_was(catalog: Catalog) -> None:
    rows = [messages.ImportProductsRequest(row=n, product=product(f"p{n:03}")) for n in range(450)]
    async for _ in catalog.stub.ImportProducts(iter(rows), timeout=30):
        pass
    seen: list[str] = []
    token = ""
    breaks = 0
    while True:
        async for response in streamed(catalog, token):
            seen += [state.product.product_id for state in response.states]
            token = response.resume_token
            breaks += 1
            break  # off, after each message
        else:
            break
    assert seen == [f"p{n:03}" for n in range(450)]
    assert breaks >= 3
    assert (await refusal(anext(streamed(catalog, "what?"))))[2] == {"resume_token"}
    other = messages.StreamProductsRequest(resume_token=token)
    assert (await refusal(anext(aiter(catalog.stub.StreamProducts(other)))))[2] == {"resume_token"}


async def test_a_write_is_answered_with_what_a_search_can_wait_for(catalog: Catalog) -> None:
    async def told(call: Any) -> ConsistencyToken:
        await call
        return ConsistencyToken.decode(str(dict(await call.trailing_metadata())[METADATA]), TOKEN_KEY)

    stub = catalog.stub
    created = messages.CreateProductRequest(product=product("p"), request_id=str(uuid4()))
    assert await told(stub.CreateProduct(created, timeout=LIMIT)) == ConsistencyToken("p", 1)
    changed = messages.UpdateProductRequest(product=Product(product_id="p", name="Cup"))
    assert await told(stub.UpdateProduct(changed, timeout=LIMIT)) == ConsistencyToken("p", 2)
    # What changes nothing, or was done before, is answered with what there is.
    assert await told(stub.UpdateProduct(changed, timeout=LIMIT)) == ConsistencyToken("p", 2)
    assert await told(stub.CreateProduct(created, timeout=LIMIT)) == ConsistencyToken("p", 2)
    deletion = messages.DeleteProductRequest(product_id="p")
    assert await told(stub.DeleteProduct(deletion, timeout=LIMIT)) == ConsistencyToken("p", 3)
    reading = stub.GetProduct(messages.GetProductRequest(product_id="p"), timeout=LIMIT)
    await refusal(reading)
    assert METADATA not in dict(await reading.trailing_metadata())
