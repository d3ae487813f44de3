"""A search that carries what a write was answered with sees what was written."""

import asyncio
import random

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from polymart.search.v1 import search_service_pb2 as pb

from chassis.consistency import ConsistencyToken
from search_svc.adapters.mappings import PRODUCTS
from tests.integration.search.support import LIMIT, TOKEN_KEY, Search, deleted, product, refusal, updated


def token(product_id: str, version: int) -> str:
    return ConsistencyToken(product_id, version).encode(TOKEN_KEY)


async def test_each_search_sees_the_write_whose_token_it_carries(search: Search) -> None:
    chance = random.Random(3)
    versions: dict[str, int] = {}

    async def write_and_read(key: str) -> None:
        for _ in range(10):
            version = versions[key] = versions.get(key, 0) + 1
            await search.publish_only(*updated(product(key, f"Mug {key}", version=version)))
            page = await search.find("mug", page_size=100, consistency_token=token(key, version))
            (hit,) = (hit for hit in page.hits if hit.product_id == key)
            assert hit.product_version >= version
            await asyncio.sleep(chance.uniform(0, 0.05))

    await asyncio.gather(*(write_and_read(f"p{n}") for n in range(8)))
    # What is deleted is waited for as well.
    await search.publish_only(deleted("p3", 11))
    assert "p3" not in await search.ids("mug", page_size=100, consistency_token=token("p3", 11))


async def test_what_does_not_come_within_the_deadline_is_said(search: Search) -> None:
    await search.publish(*updated(product("p")))
    await search.handled()
    assert await search.ids(consistency_token=token("p", 1)) == ["p"]
    request = pb.SearchProductsRequest(consistency_token=token("p", 2))
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await search.stub.SearchProducts(request, timeout=1)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    status, info = rpc_status.from_call(late.value), ErrorInfo()  # type: ignore[no-untyped-call]
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.reason == "INDEX_BEHIND"


@pytest.mark.parametrize("forge", [lambda t: t[:-2] + ("AA" if t[-2:] != "AA" else "BB"), lambda t: "x", lambda t: "é"])
async def test_a_token_that_was_not_given_is_refused_with_all_else_that_is_wrong(search: Search, forge) -> None:  # type: ignore[no-untyped-def]
    forged = forge(token("p", 1))
    assert await refusal(search.find(consistency_token=forged, page_size=-1)) == (
        "INVALID_ARGUMENT",
        {"consistency_token", "page_size"},
    )
    other = ConsistencyToken("p", 1).encode("another key, also of enough characters")
    assert await refusal(search.find(consistency_token=other)) == ("INVALID_ARGUMENT", {"consistency_token"})


async def test_a_token_is_no_part_of_what_a_page_was_asked_for(search: Search) -> None:
    await search.publish(*updated(*(product(f"p{n}") for n in range(3))))
    await search.handled()
    first = await search.find("mug", page_size=2, consistency_token=token("p1", 1))
    page = pb.SearchProductsRequest(text="mug", page_size=2, page_token=first.next_page_token)
    assert len((await search.stub.SearchProducts(page, timeout=LIMIT)).hits) == 1


async def test_many_that_wait_do_not_refresh_the_index_each(search: Search) -> None:
    await search.publish(*updated(*(product(f"p{n}") for n in range(40))))
    await search.handled()
    before = await refreshes(search)
    waiting = [search.find(consistency_token=token(f"p{n}", 2)) for n in range(40) for _ in range(3)]
    reading = asyncio.gather(*waiting)
    await search.publish_only(*updated(*(product(f"p{n}", version=2) for n in range(40))))
    await reading
    if before is not None:
        assert (await refreshes(search) or 0) - before < 40


async def refreshes(search: Search) -> int | None:
    """How often the index was refreshed so far; None where the engine doesn't tell."""
    stats = (await search.engine.client.indices.stats(index=PRODUCTS)).body
    return stats.get("_all", {}).get("total", {}).get("refresh", {}).get("total")  # type: ignore[no-any-return]


async def test_the_lag_of_the_projection_is_told(search: Search) -> None:
    assert not (await search.status()).HasField("projection_lag")
    await search.publish(*updated(product("p")))
    await search.handled()
    status = await search.status()
    assert status.HasField("projection_lag")
    assert 0 < status.projection_lag.ToMilliseconds() < 20_000
    registry = search.service.service.metrics.registry
    labels = {"type": "polymart.catalog.v1.ProductUpdated"}
    assert registry.get_sample_value("polymart_projection_lag_seconds_count", labels) == 1
    assert registry.get_sample_value("polymart_projection_behind_seconds")
