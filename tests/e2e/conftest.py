"""One stack for all end-to-end tests, every service and engine a process, and a collector for their traces."""

import os
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from tests.e2e.collector import Collector, start_collector
from tests.e2e.shop import Shop


@pytest.fixture(scope="session")
async def collector() -> AsyncIterator[Collector]:
    server, collector = await start_collector()
    yield collector
    await server.stop(None)


@pytest.fixture(scope="session")
async def shop(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[Shop]:
    """A running shop. A test that breaks something mends it again before it ends."""
    environ = {**os.environ, "POLYMART_OTLP_ENDPOINT": f"http://{collector.address}"}
    async with Stack(tmp_path_factory.mktemp("stack"), environ=environ) as stack:
        opened = Shop(stack)
        yield opened
        await opened.close()
