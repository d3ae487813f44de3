"""The connection to MongoDB, through motor or PyMongo's own async client: the only file that knows which."""

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from bson import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConnectionFailure, PyMongoError, WriteConcernError

from chassis.errors import Unavailable

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Driver = Literal["motor", "pymongo"]

OPERATION_TIMEOUT = 10.0
# A longer $in is split: matching one is quadratic in SecantusDB, and MongoDB merges at most 200 scans by their order.
LOOKUP = 100
# Messages that one document may hold unsent, so that it stays well below MongoDB's 16 MiB.
MAX_UNSENT = 32
# The outbox moves large pages, for which this is the only limit.
_SOCKET_TIMEOUT_MS = 45_000
_SELECTION_TIMEOUT_MS = 2_500


class Mongo:
    """The database that `url` names, "catalog" if it names none. `open` doesn't connect: that happens with the first
    operation, and again whenever the connection was lost."""

    def __init__(self, url: str, driver: Driver = "motor"):
        self.url = url
        kind: Any = AsyncIOMotorClient if driver == "motor" else AsyncMongoClient
        self._client = kind(
            url,
            socketTimeoutMS=_SOCKET_TIMEOUT_MS,
            connectTimeoutMS=_SELECTION_TIMEOUT_MS,
            serverSelectionTimeoutMS=_SELECTION_TIMEOUT_MS,
            connect=False,
            appname="catalog_svc",
        )

    def collection(self, name: str) -> Collection:
        # motor's collection has the methods of PyMongo's, as far as they are used here.
        return cast(
            Collection,
            self._client.get_default_database("catalog").get_collection(
                name, codec_options=CodecOptions(tz_aware=True), write_concern=WriteConcern("majority", j=True)
            ),
        )

    async def open(self) -> None:
        """Nothing to do: the driver connects when it is used."""

    async def close(self) -> None:
        closing = self._client.close()
        if inspect.isawaitable(closing):
            await closing

    async def ready(self) -> None:
        """Raises Unavailable unless the server answers."""
        async with operation():
            await self._client.get_default_database("catalog").command("ping")


@asynccontextmanager
async def operation() -> AsyncGenerator[None, None]:
    """Around one operation: a limit to its time, and outages and timeouts as Unavailable."""
    try:
        async with asyncio.timeout(OPERATION_TIMEOUT):
            yield
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure | WriteConcernError) or error.timeout:
            raise Unavailable(f"MongoDB can't be reached: {_in_short(error)}") from error
        raise
    except TimeoutError as error:
        raise Unavailable(f"MongoDB didn't answer within {OPERATION_TIMEOUT:.0f} s") from error


def parts(keys: Sequence[str]) -> list[list[str]]:
    """The keys in their order, as many together as one $in may have."""
    return [list(keys[start : start + LOOKUP]) for start in range(0, len(keys), LOOKUP)]


def _in_short(error: PyMongoError) -> str:
    """Without what the driver adds of its settings and of every server's state, which differs each time."""
    return re.split(r" \(configured timeouts| ?, Timeout: ", str(error), maxsplit=1)[0]


async def missing_indexes(collection: Collection, names: list[str]) -> list[str]:
    async with operation():
        present = await collection.index_information()
    return [f"{collection.name}.{name}" for name in names if name not in present]
