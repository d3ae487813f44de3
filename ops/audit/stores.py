"""Read-only access to the stores of all services."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
from nats.errors import Error as NatsError
from pymongo.errors import PyMongoError

from catalog_svc.adapters.mongo import Mongo
from catalog_svc.adapters.mongo_products import MongoProducts
from catalog_svc.adapters.mongo_taxonomy import MongoTaxonomy
from chassis.config import PREFIX, load
from chassis.errors import Unavailable
from chassis.messaging.nats import Nats
from chassis.postgres import Postgres
from chassis.service import Resource
from devstack.stack import StackInfo
from search_svc.adapters.engine import Engine, translated
from search_svc.engine_config import EngineConfig

OWNERS = ("order", "inventory", "payment", "customer", "notification")


@dataclass(frozen=True, slots=True)
class Stores:
    """Databases by their owner ("order", …); `provider` is the payment provider's own."""

    postgres: Mapping[str, Postgres]
    products: MongoProducts
    taxonomy: MongoTaxonomy
    index: Engine
    nats: Nats

    @property
    def orders(self) -> Postgres:
        return self.postgres["order"]

    @property
    def inventory(self) -> Postgres:
        return self.postgres["inventory"]

    @property
    def payments(self) -> Postgres:
        return self.postgres["payment"]

    @property
    def provider(self) -> Postgres:
        return self.postgres["provider"]

    @property
    def customers(self) -> Postgres:
        return self.postgres["customer"]

    @property
    def notifications(self) -> Postgres:
        return self.postgres["notification"]


@asynccontextmanager
async def open_stores(info: StackInfo) -> AsyncIterator[Stores]:
    """All stores of a running stack, PostgreSQL's by the auditor's read-only role.

    Whatever a store says no to in the block is raised as PolymartError that names it, mostly Unavailable.
    """
    databases = {owner: Postgres(url, max_size=2, name="polymart verify") for owner, url in info.auditors.items()}
    told = load(EngineConfig, {f"{PREFIX}{name}": value for name, value in info.search_settings.items()})
    mongo, index = Mongo(info.mongodb_url), Engine(told.elasticsearch_url, told.access)
    nats = Nats(info.nats_url, "polymart verify")
    async with AsyncExitStack() as stack:
        resources: list[Resource] = [*databases.values(), mongo, index, nats]
        for resource in resources:
            await resource.open()
            stack.push_async_callback(resource.close)
        await nats.ready()
        try:
            with translated():
                yield Stores(databases, MongoProducts(mongo), MongoTaxonomy(mongo), index, nats)
        except asyncpg.PostgresError as error:
            raise Unavailable(f"PostgreSQL refuses the auditor: {error}") from error
        except PyMongoError as error:
            raise Unavailable(f"MongoDB refuses the auditor: {error}") from error
        except NatsError as error:
            raise Unavailable(f"NATS doesn't answer: {error or type(error).__name__}") from error
