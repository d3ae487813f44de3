"""MongoDB: a real `mongod` where there is one, else SecantusDB, which speaks its protocol over WiredTiger files."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from devstack.engine import Engine, loopback
from devstack.errors import EngineError, reason
from devstack.nats import script

NAMED = "POLYMART_MONGOD"
CACHE = "256M"


class MongoDB(Engine):
    """MongoDB's protocol; `url` names no database. Each server program has a data folder of its own."""

    name = "mongodb"
    title = "MongoDB"
    variable = "POLYMART_MONGODB_URL"
    schemes = ("mongodb", "mongodb+srv")
    example = "mongodb://user:password@host:27017/"

    def local_url(self, port: int) -> str:
        return f"mongodb://{loopback(port)}/?directConnection=true"

    async def check(self, url: str) -> None:
        client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(url, serverSelectionTimeoutMS=2000)
        try:
            await client.admin.command("ping")
        finally:
            await client.close()

    async def prepare(self) -> None:
        self._store().mkdir(parents=True, exist_ok=True)

    def command(self) -> Sequence[str | Path]:
        mongod, store = self._mongod(), self._store()
        if mongod is not None:
            options = ("--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25")
            return [mongod, "--dbpath", store, "--port", str(self.port), *options]
        secantus = script(self, "secantusd-py", "SecantusDB")
        # Without syncing, a `kill -9` takes acknowledged writes along.
        options = ("--sync-on-commit", "--cache-size", CACHE, "--log-level", "WARNING")
        return [secantus, "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", store, *options]

    def _store(self) -> Path:
        return self.folder / ("mongod" if self._mongod() else "secantus")

    def _mongod(self) -> str | None:
        named = self.home.environ.get(NAMED)
        if named and not (os.path.isfile(named) and os.access(named, os.X_OK)):
            remedy = f"correct {NAMED}, or unset it to use SecantusDB"
            raise EngineError(self.title, f"{named}, named by {NAMED}, is no program that can be run", remedy)
        return named or shutil.which("mongod", path=self.home.environ.get("PATH"))

    def _validate(self, url: str) -> None:
        # Several hosts may stand in such a URL.
        if urlsplit(url).scheme == "mongodb+srv":
            return  # resolving it takes the network: reaching it will tell
        try:
            parse_uri(url, warn=False)
        except (PyMongoError, ValueError) as error:
            cause = f"{self.variable} is not a URL that it understands ({reason(error).split('://')[0]})"
            raise EngineError(self.title, cause, f"write it like {self.example}") from None
