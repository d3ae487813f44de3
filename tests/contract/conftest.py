"""The engines and drivers that the catalog's stores are tried on, each behind a database of its own."""

from collections.abc import AsyncIterator, Iterator
from secrets import token_hex
from urllib.parse import urlsplit

import pytest

from catalog_svc.adapters.mongo import Mongo
from tests.contract.recorder import RECORDER, Recorder

_ENGINES = ("secantus-motor", "secantus-pymongo", "mongod-motor", "mongod-pymongo")


def _url(request: pytest.FixtureRequest, engine: str) -> str:
    return urlsplit(request.getfixturevalue(engine).url)._replace(path=f"/test_{token_hex(6)}").geturl()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    RECORDER.commands.clear()
    RECORDER.on = True
    yield RECORDER
    RECORDER.on = False


# Fixtures that need no loop: they ask for others by name.


@pytest.fixture(params=_ENGINES)
def engine_place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The URL of an empty database, and the driver that reaches it. Skips where there is no mongod."""
    engine, _, driver = request.param.partition("-")
    return _url(request, engine), driver


@pytest.fixture(params=["memory", *_ENGINES])
def any_place(request: pytest.FixtureRequest) -> tuple[str, str] | None:
    """The same, or None for a store in memory."""
    if request.param == "memory":
        return None
    engine, _, driver = request.param.partition("-")
    return _url(request, engine), driver


def _connected(place: tuple[str, str]) -> Mongo:
    url, driver = place
    return Mongo(url, "motor" if driver == "motor" else "pymongo")


@pytest.fixture
async def empty_mongo(engine_place: tuple[str, str]) -> AsyncIterator[Mongo]:
    mongo = _connected(engine_place)
    yield mongo
    await mongo.close()


@pytest.fixture
async def mongo_or_memory(any_place: tuple[str, str] | None) -> AsyncIterator[Mongo | None]:
    mongo = _connected(any_place) if any_place else None
    yield mongo
    if mongo:
        await mongo.close()
