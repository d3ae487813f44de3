"""The demo: what it says and does where it is broken off, where a service is busy, and where engines aren't empty."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from polymart.catalog.v1 import catalog_service_pb2 as catalog
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer, add_CatalogServiceServicer_to_server
from polymart.catalog.v1.product_pb2 import Product
from polymart.order.v1 import order_service_pb2 as ordering
from polymart.order.v1.order_pb2 import Order
from polymart.order.v1.order_service_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from polymart.search.v1.search_service_pb2 import IndexStatus
from polymart.search.v1.search_service_pb2_grpc import SearchServiceServicer, add_SearchServiceServicer_to_server

from chassis.messaging.nats import Nats
from devstack.engine import Engine
from ops.clients import Clients, Terminal
from ops.demo import Demo, Steps, refuse_used


class Shop(CatalogServiceServicer, OrderServiceServicer, SearchServiceServicer):
    """Services that hold so much; the index fails at first in these ways."""

    def __init__(self, products: int = 0, orders: int = 0, indexed: int = 0, *failures: grpc.StatusCode):
        self._products, self._orders, self._indexed, self._failures = products, orders, indexed, [*failures]

    async def ListProducts(self, request: Any, context: Any) -> catalog.ListProductsResponse:
        return catalog.ListProductsResponse(products=[Product()] * self._products)

    async def ListOrders(self, request: Any, context: Any) -> ordering.ListOrdersResponse:
        return ordering.ListOrdersResponse(orders=[Order()] * self._orders)

    async def GetIndexStatus(self, request: Any, context: Any) -> IndexStatus:
        if self._failures:
            await context.abort(self._failures.pop(0), "busy")
        return IndexStatus(products=self._indexed, products_in_stock=self._indexed)


@asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[Clients]:
    server = grpc.aio.server()
    add_CatalogServiceServicer_to_server(shop, server)
    add_OrderServiceServicer_to_server(shop, server)
    add_SearchServiceServicer_to_server(shop, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    clients = Clients(lambda _: f"127.0.0.1:{port}")
    try:
        yield clients
    finally:
        await clients.close()
        await server.stop(0)


async def test_a_search_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    shop = Shop(0, 0, 7, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    terminal = Terminal(file=StringIO())
    async with serving(shop) as clients:
        await Demo(clients, tmp_path, terminal, Steps(terminal))._wait_for_search(7, 7)


async def test_a_search_that_is_broken_is_not_waited_for(tmp_path: Path) -> None:
    terminal = Terminal(file=StringIO())
    async with serving(Shop(0, 0, 7, grpc.StatusCode.INTERNAL)) as clients:
        with pytest.raises(grpc.aio.AioRpcError, match="INTERNAL"):
            await Demo(clients, tmp_path, terminal, Steps(terminal))._wait_for_search(7, 7)


async def test_engines_that_hold_anything_are_refused_by_name(fresh_nats: Nats, nats: Engine) -> None:
    async with serving(Shop()) as clients:
        await refuse_used(clients, nats.url)
        await fresh_nats.js.publish("evt.order.order.OrderPlaced.x", b"x")
        with pytest.raises(ValueError, match="but NATS has messages: "):
            await refuse_used(clients, nats.url)
    async with serving(Shop(1, 1, 1)) as clients:
        held = "MongoDB has products, Elasticsearch has products, PostgreSQL has orders, NATS has messages"
        with pytest.raises(ValueError, match=held):
            await refuse_used(clients, nats.url)


def test_a_file_has_a_line_for_each_step_as_it_begins() -> None:
    file = StringIO()
    with Steps(Terminal(file=file)) as steps:
        starting = steps.add_task("starting the stack", total=None)
        assert file.getvalue() == "starting the stack\n"
        steps.rename(starting, "starting [NATS]")
        assert file.getvalue() == "starting the stack\nstarting [NATS]\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_demo_that_is_broken_off_stops_everything_and_says_so(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYMART_")}
    demo = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("polymart")), "demo"),
        env={**kept, "POLYMART_HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    assert demo.stderr is not None
    try:
        async with asyncio.timeout(90):
            while "preparing databases" not in (line := (await demo.stdout.readline()).decode()):
                assert line, "it ended by itself"
            demo.send_signal(number)
            assert await demo.stderr.readline() == b"polymart: stopping\n"
            demo.send_signal(number)
            _, said = await demo.communicate()
    finally:
        if demo.returncode is None:
            demo.kill()
    assert (demo.returncode, said) == (code, b"polymart: stopped\n")
    assert not (tmp_path / "demo" / "stack.json").exists()
