"""search_svc while its engine is away, stands still, or comes back empty."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from polymart.inventory.v1.stock_pb2 import AVAILABILITY_LOW

from devstack.engine import Engine as Server
from search_svc.adapters.mappings import PRODUCTS
from tests.conftest import until
from tests.integration.search.support import Peers, Search, deleted, product, refusal, stocked, updated

StartSearch = Callable[..., Awaitable[Search]]

EVERYTHING = [
    *updated(*(product(f"p{n:03}", "Mug", f"s.{n}") for n in range(100))),
    *(stocked(f"s.{n}", AVAILABILITY_LOW) for n in range(0, 100, 2)),
    deleted("p007", 2),
]


async def complete(search: Search) -> None:
    """Wait until all of EVERYTHING is in the index."""
    await until(search.serving, 20)
    await search.engine.client.indices.refresh(index=PRODUCTS)
    status = await search.status()
    assert (status.products, status.products_in_stock, status.rebuilding) == (99, 50, False)
    page = await search.find("mug", page_size=100)
    assert sorted(hit.product_id for hit in page.hits) == [f"p{n:03}" for n in range(100) if n != 7]


async def test_what_the_owners_have_is_found_by_a_service_that_never_heard_of_it(
    start_search: StartSearch, fresh_search: str, peers: Peers
) -> None:
    peers.told(*EVERYTHING)
    await complete(await start_search(fresh_search))
    # Once to fill the index, once to compare it.
    assert peers.streams == 2


async def test_replicas_that_rebuild_at_once_and_events_meanwhile(
    start_search: StartSearch, fresh_search: str, peers: Peers
) -> None:
    peers.told(*EVERYTHING)
    peers.open.clear()
    replicas = [await start_search(fresh_search, wait=False) for _ in range(2)]
    await until(lambda: peers.streams)
    assert not await replicas[0].serving()
    status = await replicas[1].status()
    assert (status.products, status.rebuilding) == (0, True)
    # What the stream is about to tell is old by then.
    await replicas[0].publish_only(*updated(product("p001", "Cup", "s.1", version=5)), deleted("p002", 6))
    await replicas[0].publish_only(stocked("s.1", AVAILABILITY_LOW, version=9))
    await replicas[0].handled()
    peers.open.set()
    for replica in replicas:
        await until(replica.serving, 20)
    (cup,) = (await replicas[1].find("cup")).hits
    assert (cup.product_version, cup.availability) == (5, AVAILABILITY_LOW)
    assert sorted(await replicas[0].ids("mug", page_size=100)) == [f"p{n:03}" for n in range(100) if n not in (1, 2, 7)]
    assert peers.streams == 2


async def test_an_index_lost_while_serving_is_filled_again_from_its_owners(
    start_search: StartSearch, own_engine: Server, peers: Peers
) -> None:
    replicas = [await start_search(own_engine.url) for _ in range(2)]
    search = replicas[0]
    await search.publish(*EVERYTHING)
    await search.handled()
    await complete(search)

    await own_engine.kill()
    for replica in replicas:
        await until(replica.not_serving)
        assert await refusal(replica.find("mug")) == ("UNAVAILABLE", set())
        assert await refusal(replica.status()) == ("UNAVAILABLE", set())
    # Its owners know it, and so do messages that nobody could handle.
    peers.open.clear()
    late = product("late", "Mug", "s.late")
    await search.publish(*updated(late))
    await own_engine.restart()
    await until(lambda: peers.streams == 3, 20)
    assert not await search.serving()
    assert (await search.status()).rebuilding
    peers.open.set()
    for replica in replicas:
        await until(replica.serving, 20)
    await search.handled()
    status = await search.status()
    assert (status.products, status.products_in_stock) == (100, 50)
    assert "late" in await search.ids("mug", page_size=100)
    assert await search.dead_letters() == 0


async def test_messages_wait_while_the_engine_is_away(
    start_search: StartSearch, own_engine: Server, peers: Peers
) -> None:
    search = await start_search(own_engine.url)
    await own_engine.kill(signal.SIGSTOP)
    await search.publish_only(*EVERYTHING)
    await until(search.not_serving)
    await own_engine.kill(signal.SIGCONT)
    await search.handled()
    await complete(search)

    await own_engine.kill()
    news = updated(*(product(f"p{n:03}", "Cup", f"s.{n}", version=3) for n in range(100)))
    await search.publish(*news)
    await until(search.not_serving)

    async def paused() -> bool:
        return await search._waiting() == len(news)

    await until(paused)
    await own_engine.restart()
    await until(search.serving, 20)
    await search.handled()
    assert (await search.find("cup")).total_size == 100
    assert await search.dead_letters() == 0


async def test_an_engine_that_dies_again_and_again_under_load_ends_with_all_of_it(
    start_search: StartSearch, own_engine: Server, peers: Peers
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    search = await start_search(own_engine.url)
    newest: dict[str, int] = {}

    async def shop() -> None:
        for _ in range(60):
            keys = chance.sample(range(40), 5)
            for key in keys:
                newest[f"p{key:02}"] = newest.get(f"p{key:02}", 0) + 1
            messages = updated(*(product(f"p{k:02}", f"Mug {k}", version=newest[f"p{k:02}"]) for k in keys))
            await search.publish(*messages)
            await asyncio.sleep(0)

    shopping = asyncio.create_task(shop())
    for _ in range(2):
        await own_engine.kill()
        await own_engine.restart()
    await shopping
    await until(search.serving, 20)
    await search.handled()
    versions = {hit.product_id: hit.product_version for hit in (await search.find("", page_size=100)).hits}
    assert versions == newest
    assert await search.dead_letters() == 0


async def test_a_stream_that_breaks_off_is_taken_up_and_makes_no_index_complete(
    start_search: StartSearch, fresh_search: str, peers: Peers
) -> None:
    peers.told(*EVERYTHING)
    peers.breaks = 2
    await complete(await start_search(fresh_search))
    assert (peers.streams, peers.breaks) == (4, 0)
