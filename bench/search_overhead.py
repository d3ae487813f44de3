"""What a search takes through the service, beside the same requests sent to its engine directly.

    .venv/bin/python bench/search_overhead.py [FILE]

FILE's products (those of data/ if none is named) are imported into a new stack. Then texts are searched for, eight at a
time: through SearchProducts, and as the very requests that it makes, in turns. The ratio is that of the medians; all
processes share the machine's cores, so it has what each one's CPU takes.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp
from polymart.search.v1.search_service_pb2 import SearchProductsRequest

from bench.catalog_import import import_file, new_stack
from ops.clients import Clients, console
from search_svc.adapters.elastic_search import ElasticProductSearch
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from search_svc.domain.query import Query, Relaxed

TEXTS = (
    "hdmi cable", "toner", "wireless mouse", "notebook", "laser printer", "usb hub", "black ink cartridge", "keyboard",
    "monitor stand", "headphones", "battery", "case", "4gb memory", "usb c adapter", "paper a4", "camera",
)  # fmt: skip
IN_FLIGHT = 8
_ROUNDS = 4
_CALLS = 96
_PAGE = 20

Sent = tuple[str, str, bytes]


async def requests_of(engine_url: str, text: str, *, facets: bool) -> list[Sent]:
    """What the service sends for a text: method, target and body of each request, in order."""
    engine = Engine(engine_url)
    await engine.open()
    sent: list[Sent] = []
    transport: Any = engine.client.transport
    perform = transport.perform_request

    async def recorded(method: str, target: str, *, body: Any = None, **options: Any) -> Any:
        sent.append((method, target, json.dumps(body).encode()))
        return await perform(method, target, body=body, **options)

    transport.perform_request = recorded
    try:
        search = ElasticProductSearch(engine, Indices(engine))
        await search.search(Query(text, facets=facets), size=_PAGE, after=None, relaxed=Relaxed.NOTHING)
    finally:
        await engine.close()
    return sent


async def medians(calls: Sequence[Callable[[], Awaitable[object]]]) -> float:
    """Seconds that the median call takes, with so many in flight all the time."""
    took: list[float] = []
    left = iter(calls)

    async def worker() -> None:
        for call in left:
            begun = time.perf_counter()
            await call()
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return statistics.median(took)


async def compared(clients: Clients, engine_url: str, *, facets: bool) -> tuple[float, float]:
    """The medians in seconds: through the service, and directly."""
    recorded = {text: await requests_of(engine_url, text, facets=facets) for text in TEXTS}
    async with aiohttp.ClientSession(engine_url, headers={"content-type": "application/json"}) as session:

        async def directly(text: str) -> None:
            for method, target, body in recorded[text]:
                async with session.request(method, target, data=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

        async def through(text: str) -> None:
            request = SearchProductsRequest(text=text, page_size=_PAGE, skip_facets=not facets)
            await clients.search.SearchProducts(request, timeout=60)

        def calls(call: Callable[[str], Awaitable[None]]) -> list[Callable[[], Awaitable[object]]]:
            return [lambda text=text: call(text) for text in islice(cycle(TEXTS), _CALLS)]  # type: ignore[misc]

        ways: dict[Callable[[str], Awaitable[None]], list[float]] = {through: [], directly: []}
        for _ in range(_ROUNDS + 1):
            for way, found in ways.items():
                found.append(await medians(calls(way)))
    # The first round warms up.
    service, direct = (statistics.median(found[1:]) for found in ways.values())
    return service, direct


async def main(file: Path) -> None:
    async with new_stack() as (stack, clients):
        done = await import_file(clients, file)
        console.print(f"{done.report.written:,} products, {IN_FLIGHT} in flight, pages of {_PAGE}")
        for facets in (False, True):
            service, direct = await compared(clients, stack.engines.elasticsearch_url, facets=facets)
            name = "with facets" if facets else "hits alone"
            console.print(
                f"{name}: {service * 1e3:.1f} ms through the service, {direct * 1e3:.1f} ms directly, "
                f"ratio {service / direct:.2f}"
            )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "data/products.jsonl.gz")))
