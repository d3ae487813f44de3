"""catalog_svc as a process that is killed, and over a store that stands still."""

import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from polymart.catalog.v1 import catalog_service_pb2 as messages
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from polymart.catalog.v1.events_pb2 import ProductCreated

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.bootstrap import build, migrate
from catalog_svc.config import CatalogConfig
from chassis.messaging.nats import Nats
from chassis.service import start
from devstack.mongodb import MongoDB
from tests.conftest import free_port, spawn, started, stop, until
from tests.integration.catalog.support import events, product

ROWS = 300


async def health(channel: grpc.aio.Channel) -> int:
    try:
        answer = await HealthStub(channel).Check(HealthCheckRequest(), timeout=1)
    except grpc.aio.AioRpcError:
        return HealthCheckResponse.UNKNOWN
    return int(answer.status)


async def has_health(channel: grpc.aio.Channel, status: int) -> None:
    async def reached() -> bool:
        return await health(channel) == status

    await until(reached)


@pytest.fixture
def address(config: CatalogConfig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a process of this environment will listen."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("POLYMART_MONGODB_URL", config.mongodb_url)
    monkeypatch.setenv("POLYMART_NATS_URL", config.nats_url)
    monkeypatch.setenv("POLYMART_GRPC_ADDRESS", address)
    monkeypatch.setenv("POLYMART_TOKEN_KEY", config.token_key)
    return address


@asynccontextmanager
async def process(address: str, folder: Path) -> AsyncIterator[tuple[Callable[[], None], grpc.aio.Channel]]:
    """The service as a process that serves; how to kill it, and a channel to it."""
    running = spawn([sys.executable, "-m", "catalog_svc"], folder / "log")
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await has_health(channel, HealthCheckResponse.SERVING)
            yield lambda: stop(running, signal.SIGKILL), channel
    finally:
        stop(running)


async def test_a_kill_in_the_middle_of_an_import_loses_and_doubles_nothing(
    address: str, config: CatalogConfig, fresh_nats: Nats, tmp_path: Path
) -> None:
    await migrate(config)
    requests = [messages.ImportProductsRequest(row=n, product=product(f"p{n}")) for n in range(ROWS)]
    answered: set[str] = set()

    async def send_and_kill(kill: Callable[[], None], channel: grpc.aio.Channel) -> None:
        call = CatalogServiceStub(channel).ImportProducts(iter(requests), timeout=30)
        async for response in call:  # type: ignore[attr-defined]
            answered.update(result.product_id for result in response.results)
            if len(answered) < ROWS:
                kill()

    async with process(address, tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await send_and_kill(*running)
    assert answered
    mongo = Mongo(config.mongodb_url)
    store = MongoProducts(mongo)
    assert set(await store.get(sorted(answered))) == answered
    # As if the dead relay's lease had run out.
    await store._products.database["leases"].delete_many({})

    async with process(address, tmp_path) as (_, channel):
        call = CatalogServiceStub(channel).ImportProducts(iter(requests), timeout=30)
        outcomes = Counter([r.outcome async for response in call for r in response.results])  # type: ignore[attr-defined]
        assert outcomes.total() == ROWS
        assert outcomes.keys() <= {messages.IMPORT_OUTCOME_CREATED, messages.IMPORT_OUTCOME_UNCHANGED}
        assert outcomes[messages.IMPORT_OUTCOME_UNCHANGED] >= len(answered)

        async def relayed() -> bool:
            return (await store.outbox.backlog()).entries == 0

        await until(relayed, 20)
    await mongo.close()
    told = [e.payload.product.product_id for e in await events(fresh_nats) if isinstance(e.payload, ProductCreated)]
    assert sorted(told) == sorted(f"p{n}" for n in range(ROWS))


async def test_a_store_that_stands_still_is_told_by_health(tmp_path: Path, config: CatalogConfig) -> None:
    async with started(MongoDB, tmp_path) as engine:
        if engine.external:
            pytest.skip("the server isn't ours to stop")
        config = config.model_copy(update={"mongodb_url": engine.url})
        await migrate(config)
        service = await start(build(config))
        await service.ready()
        async with grpc.aio.insecure_channel(service.address) as channel:
            await engine.kill(signal.SIGSTOP)
            try:
                await has_health(channel, HealthCheckResponse.NOT_SERVING)
            finally:
                await engine.kill(signal.SIGCONT)
            await has_health(channel, HealthCheckResponse.SERVING)
        await service.drain_and_stop()
