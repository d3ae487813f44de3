"""catalog_svc as a server over real engines."""

from collections.abc import AsyncIterator, Awaitable, Callable
from secrets import token_hex
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import grpc
import pytest
from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceStub

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from catalog_svc.bootstrap import build, migrate
from catalog_svc.config import CatalogConfig
from chassis.messaging.nats import Nats
from chassis.service import RunningService, start
from tests.conftest import Engine
from tests.integration.catalog.support import TOKEN_KEY, Catalog

if TYPE_CHECKING:
    from polymart.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from polymart.catalog.v1.taxonomy_service_pb2_grpc import TaxonomyServiceAsyncStub


@pytest.fixture
def database_url(mongodb: Engine) -> str:
    return urlsplit(mongodb.url)._replace(path=f"/test_{token_hex(6)}").geturl()


@pytest.fixture
def config(database_url: str, nats: Engine) -> CatalogConfig:
    return CatalogConfig(mongodb_url=database_url, nats_url=nats.url, token_key=TOKEN_KEY, drain_seconds=5)


@pytest.fixture
async def start_catalog(config: CatalogConfig, fresh_nats: Nats) -> AsyncIterator[Callable[..., Awaitable[Catalog]]]:
    """Starts a service over an empty store; `migrated=False` leaves the indexes to the test."""
    running: list[tuple[RunningService, grpc.aio.Channel]] = []

    async def begin(config: CatalogConfig = config, *, migrated: bool = True) -> Catalog:
        if migrated:
            await migrate(config)
        service = build(config)
        started = await start(service)
        if migrated:
            await started.ready()
        channel = grpc.aio.insecure_channel(started.address)
        running.append((started, channel))
        mongo = service.resources[0]
        assert isinstance(mongo, Mongo)
        stub = cast("CatalogServiceAsyncStub", CatalogServiceStub(channel))
        taxonomy = cast("TaxonomyServiceAsyncStub", TaxonomyServiceStub(channel))
        return Catalog(started, stub, taxonomy, MongoProducts(mongo), MongoTaxonomy(mongo), fresh_nats)

    yield begin
    for started, channel in running:
        await channel.close()
        await started.drain_and_stop()


@pytest.fixture
async def catalog(start_catalog: Callable[..., Awaitable[Catalog]]) -> Catalog:
    return await start_catalog()
