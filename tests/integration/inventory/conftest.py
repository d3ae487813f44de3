"""One running service for the tests of its calls, and empty tables for each."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from polymart.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub

from chassis.messaging.nats import Nats
from inventory_svc.bootstrap import build, migrate
from inventory_svc.config import InventoryConfig
from tests.conftest import Engine
from tests.integration.inventory.support import Stage, broker, databases, running, stage, stub_of


@pytest.fixture(scope="module")
async def outside(nats: Engine) -> AsyncIterator[Nats]:
    async with broker(nats.url) as connection:
        yield connection


@pytest.fixture(scope="module")
async def config(postgres: Engine, nats: Engine) -> AsyncIterator[InventoryConfig]:
    async with databases(postgres.url) as (url,):
        made = InventoryConfig(postgres_url=url, nats_url=nats.url)
        await migrate(made)
        yield made


@pytest.fixture(scope="module")
async def service(config: InventoryConfig, outside: Nats) -> AsyncIterator[InventoryServiceStub]:
    """A running service, the same for all tests of a module."""
    async with running(build(config)) as (one,), stub_of(one.address, InventoryServiceStub) as stub:
        yield stub


@pytest.fixture
async def stock(service: InventoryServiceStub, db: asyncpg.Connection) -> InventoryServiceStub:
    """The service with nothing in its tables but the location main."""
    await db.execute("TRUNCATE items, stock, holds, reservations, movements, requests")
    await db.execute("DELETE FROM locations WHERE location_id <> 'main'")
    return service


@pytest.fixture
async def orders(outside: Nats) -> AsyncIterator[Stage]:
    async with stage(outside, "inventory") as made:
        yield made


@pytest.fixture
async def db(config: InventoryConfig) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(config.postgres_url)
    yield connection
    await connection.close()
