"""A rebuild under load: every query is answered, and no edit and no flip is lost, in either index."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from polymart.inventory.v1.stock_pb2 import AVAILABILITY_IN_STOCK, AVAILABILITY_LOW, AVAILABILITY_OUT
from polymart.search.v1 import search_service_pb2 as pb

from search_svc.adapters.documents import category_to_document, product_to_document
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.adapters.mappings import CATEGORIES, PARTS, PRODUCTS
from search_svc.domain.product import Category, Product
from search_svc.protos import availability_from_proto, category_from_proto, product_from_proto, tombstone
from tests.conftest import until
from tests.integration.search.support import LIMIT, Peers, Search, deleted, placed, product, refusal, stocked, updated

StartSearch = Callable[..., Awaitable[Search]]

KEYS = [f"p{n:03}" for n in range(60)]
LEVELS = [AVAILABILITY_IN_STOCK, AVAILABILITY_LOW, AVAILABILITY_OUT]


class Shop:
    """Products, categories and stock that change all the time, as events and as their owners' streams tell."""

    def __init__(self, search: Search, chance: random.Random):
        self.search = search
        self.chance = chance
        self.versions: dict[str, int] = {}

    def next(self, key: str) -> int:
        self.versions[key] = self.versions.get(key, 0) + 1
        return self.versions[key]

    async def open(self) -> None:
        # Their availability is known before they are.
        await self.search.publish(*(stocked(f"s.{key}", AVAILABILITY_LOW, self.next(f"s.{key}")) for key in KEYS[::2]))
        await self.search.handled()
        await self.search.publish(placed("c", "Cups", version=self.next("c")))
        await self.search.publish(*updated(*(self.product(key) for key in KEYS)))
        await self.search.handled()

    def product(self, key: str) -> Any:
        version = self.next(key)
        return product(key, f"Mug {version}", f"s.{key}", version=version, category_id=self.chance.choice(["", "c"]))

    async def change(self) -> None:
        key = self.chance.choice(KEYS)
        match self.chance.randrange(8):
            case 0:
                await self.search.publish(placed("c", f"Cups {self.versions['c']}", version=self.next("c")))
            case 1:
                await self.search.publish(deleted(key, self.next(key)))
            case 2 | 3 | 4:
                sku = f"s.{key}"
                await self.search.publish(stocked(sku, self.chance.choice(LEVELS), self.next(sku)))
            case _:
                await self.search.publish(*updated(self.product(key)))

    async def busy(self, stopped: asyncio.Event) -> int:
        count = 0
        while not stopped.is_set():
            await self.change()
            count += 1
            if count % 25 == 0:
                # No faster than a slow machine takes them.
                await until(self.nearly_handled, 60)
        return count

    async def nearly_handled(self) -> bool:
        return await self.search._waiting() < 25


def told(peers: Peers) -> dict[str, dict[str, Any]]:
    """All that an index should hold, as its owners tell it."""
    availability = {
        sku: availability_from_proto(message.availability, message.version)
        for sku, message in peers.availability.items()
    }
    categories: dict[str, Category] = {key: category_from_proto(c) for key, c in peers.categories.items()}

    def shown(state: Any) -> Product:
        if state.deleted:
            return tombstone(state.product.product_id, state.product.version)
        known = product_from_proto(state.product).with_availability(availability)
        return known.with_category(categories.get(known.category.category_id))

    return {
        PRODUCTS: {key: product_to_document(shown(state)) for key, state in peers.products.items()},
        PARTS: {sku: {"version": a.version, "level": a.level.value} for sku, a in availability.items()},
        CATEGORIES: {key: category_to_document(category) for key, category in categories.items()},
    }


async def held(engine: Engine, index: str) -> dict[str, dict[str, Any]]:
    """All that the generation of this index of products holds."""
    found: dict[str, dict[str, Any]] = {}
    for kind in (PRODUCTS, PARTS, CATEGORIES):
        name = index.replace(PRODUCTS, kind)
        await engine.client.indices.refresh(index=name)
        answer = await engine.client.search(index=name, size=1_000)
        found[kind] = {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}
    # Which products ever had it, nobody else remembers.
    found[PARTS] = {
        sku: {"version": source["version"], "level": source["level"]}
        for sku, source in found[PARTS].items()
        if "version" in source
    }
    return found


async def shopping(replicas: list[Search], stopped: asyncio.Event) -> int:
    """Searches one after the other until stopped, each of which is answered, and never with an older version."""
    seen: dict[str, int] = {}
    count = 0
    while not stopped.is_set():
        page = await replicas[count % len(replicas)].find("mug", page_size=100)
        count += 1
        assert page.hits
        for hit in page.hits:
            assert hit.product_version >= seen.get(hit.product_id, 0), hit.product_id
            seen[hit.product_id] = hit.product_version
    return count


async def rebuilt(search: Search) -> pb.IndexStatus:
    async def done() -> pb.IndexStatus | None:
        status = await search.status()
        return status if status.rebuild.step == pb.REBUILD_STEP_DONE else None

    found: list[pb.IndexStatus] = []

    async def seen() -> bool:
        if status := await done():
            found.append(status)
        return bool(found)

    await until(seen, 90)
    return found[-1]


async def start_rebuild(search: Search) -> pb.IndexStatus:
    return await search.stub.StartRebuild(pb.StartRebuildRequest(), timeout=LIMIT)


async def roll_back(search: Search) -> pb.IndexStatus:
    now = await search.status()
    return await search.stub.RollbackIndex(pb.RollbackIndexRequest(index=now.index), timeout=LIMIT)


async def drop_old(search: Search) -> pb.IndexStatus:
    return await search.stub.DropOldIndex(pb.DropOldIndexRequest(), timeout=LIMIT)


@pytest.fixture
async def replicas(start_search: StartSearch, fresh_search: str) -> list[Search]:
    return [await start_search(fresh_search) for _ in range(2)]


@pytest.fixture
async def shop(replicas: list[Search]) -> Shop:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    shop = Shop(replicas[0], random.Random(seed))
    await shop.open()
    return shop


async def test_a_rebuild_under_load_answers_every_query_and_loses_no_edit_and_no_flip(
    shop: Shop, replicas: list[Search], peers: Peers
) -> None:
    stopped = asyncio.Event()
    busy, shoppers = asyncio.create_task(shop.busy(stopped)), asyncio.create_task(shopping(replicas, stopped))
    before = (await replicas[0].status()).index
    first, second = await asyncio.gather(*(start_rebuild(search) for search in replicas))
    assert first.rebuild.rebuild_id == second.rebuild.rebuild_id
    assert {search.index for search in (first, second)} == {before}
    status = await rebuilt(replicas[1])
    assert status.index == status.rebuild.index != before == status.old_index
    assert status.rebuild.digest
    assert not status.rebuild.refused_entries
    # Both are written for as long as there are both.
    changes = len(replicas[0].sent) + 50
    await until(lambda: len(replicas[0].sent) >= changes, 60)
    stopped.set()
    assert await busy
    assert await shoppers
    await replicas[0].handled()
    expected = told(peers)
    for index in (status.index, status.old_index):
        assert await held(replicas[0].engine, index) == expected
    assert await replicas[0].dead_letters() == 0


async def test_a_rollback_is_at_once_and_as_fresh_and_the_old_index_can_be_dropped(
    shop: Shop, replicas: list[Search], peers: Peers
) -> None:
    assert await refusal(roll_back(replicas[0])) == ("FAILED_PRECONDITION", set())
    await start_rebuild(replicas[0])
    status = await rebuilt(replicas[0])
    for _ in range(30):
        await shop.change()
    await replicas[0].handled()
    back = await roll_back(replicas[1])
    assert (back.index, back.old_index) == (status.old_index, status.index)
    assert await held(replicas[0].engine, back.index) == told(peers)
    stopped = asyncio.Event()
    shoppers = asyncio.create_task(shopping(replicas, stopped))
    for _ in range(30):
        await shop.change()
    await replicas[0].handled()
    dropped = await drop_old(replicas[0])
    assert (dropped.index, dropped.old_index) == (back.index, "")
    for _ in range(30):
        await shop.change()
    await replicas[0].handled()
    stopped.set()
    assert await shoppers
    names = (await replicas[0].engine.client.indices.get(index=f"{PRODUCTS}-*")).body
    assert set(names) == {back.index}
    assert await held(replicas[0].engine, back.index) == told(peers)
    assert await refusal(roll_back(replicas[0])) == ("FAILED_PRECONDITION", set())


async def test_another_replica_goes_on_where_the_one_that_drove_it_ended(
    shop: Shop, replicas: list[Search], peers: Peers
) -> None:
    peers.open.clear()
    streams = peers.streams
    await start_rebuild(replicas[0])
    await until(lambda: peers.streams == streams + 1)
    assert await refusal(drop_old(replicas[0])) == ("FAILED_PRECONDITION", set())
    status = await replicas[0].status()
    assert (status.rebuild.step, status.rebuilding) == (pb.REBUILD_STEP_PRODUCTS, False)
    assert await replicas[0].ids("mug")
    record = await Indices(replicas[0].engine).rebuild()
    assert record
    holder = record.document.holder
    (driver,) = (s for s in replicas if any(getattr(w, "_holder", "") == holder for w in s.service.service.workers))
    await driver.service.drain_and_stop()
    peers.open.set()
    (left,) = (search for search in replicas if search is not driver)
    for _ in range(30):
        key = shop.chance.choice(KEYS)
        await left.publish(*updated(shop.product(key)))
    status = await rebuilt(left)
    await left.handled()
    for index in (status.index, status.old_index):
        assert await held(left.engine, index) == told(peers)


async def test_a_rebuild_waits_for_a_source_that_is_away_and_says_so(
    shop: Shop, replicas: list[Search], peers: Peers
) -> None:
    peers.breaks = 3
    await start_rebuild(replicas[0])

    async def troubled() -> bool:
        return "the service is stopping" in (await replicas[1].status()).rebuild.trouble

    await until(troubled)
    status = await rebuilt(replicas[0])
    assert status.rebuild.trouble == ""
    assert await held(replicas[0].engine, status.index) == told(peers)


async def test_what_an_earlier_release_left_is_dropped_with_the_old_index(replicas: list[Search]) -> None:
    client = replicas[0].engine.client
    for name in ("products-2-000001", "product-parts-v2-000007", "product-rebuild-v2-record"):
        await client.indices.create(index=name)
    for name in ("products-v99-000001", "products-of-others"):
        await client.indices.create(index=name)
    await drop_old(replicas[0])
    left = set((await client.indices.get(index="product*")).body)
    assert {name for name in left if "2-" in name} == set()
    assert {"products-v99-000001", "products-of-others"} <= left


async def test_while_there_is_no_complete_index_none_is_rebuilt_beside_it(
    start_search: StartSearch, fresh_search: str, peers: Peers
) -> None:
    peers.told(*updated(product("p")))
    peers.open.clear()
    search = await start_search(fresh_search, wait=False)
    await until(lambda: peers.streams)
    healing = await search.status()
    assert healing.rebuilding
    # It is the one that runs.
    assert (await start_rebuild(search)).rebuild.rebuild_id == healing.rebuild.rebuild_id
    peers.open.set()
    await until(search.serving)
    with pytest.raises(grpc.aio.AioRpcError):
        await roll_back(search)
