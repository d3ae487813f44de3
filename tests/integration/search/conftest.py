"""The engine, and search_svc among doubles of its peers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from chassis.messaging.nats import Nats
from devstack.engine import Engine as Server
from devstack.search import SearchServer
from search_svc.adapters.engine import Engine
from search_svc.adapters.indices import Indices
from tests.conftest import started
from tests.integration.search.support import Peers, Search, peers_serving, search_service

# What engines answer differs, and is asked of OpenSearch in every run.
ON_EACH_ENGINE = ("test_indices.py", "test_queries.py", "test_ranking.py", "test_suggestions.py", "test_features.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """How the service gets on with its messages and replicas is the same on each engine: on OpenSearch, which takes
    longer, those tests are among the long ones."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if (
            params.get("search_engine") == "opensearch"
            and item.path.parent.name == "search"
            and item.path.name not in ON_EACH_ENGINE
        ):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
async def engine(fresh_search: str) -> AsyncIterator[Engine]:
    """Of the session's server, without an index."""
    engine = Engine(fresh_search)
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
async def indices(engine: Engine) -> Indices:
    """Made and empty."""
    indices = Indices(engine)
    await indices.migrate()
    return indices


@pytest.fixture
async def own_engine(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that a test may kill and start again, then empty."""
    async with started(SearchServer, tmp_path) as server:
        if server.external:
            pytest.skip("the server isn't ours to kill")
        yield server


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    async with peers_serving() as peers:
        yield peers


@pytest.fixture
async def start_search(fresh_nats: Nats, peers: Peers) -> AsyncIterator[Callable[..., Awaitable[Search]]]:
    """Starts a replica over the engine at a URL; `wait=False` doesn't wait until it serves."""
    running: list[Search] = []

    async def begin(url: str, *, wait: bool = True) -> Search:
        running.append(search := await search_service(url, fresh_nats, peers))
        if wait:
            await search.service.ready()
        return search

    yield begin
    for search in running:
        await search.close()


@pytest.fixture
async def search(start_search: Callable[..., Awaitable[Search]], fresh_search: str) -> Search:
    return await start_search(fresh_search)
