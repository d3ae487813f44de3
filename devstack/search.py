"""osmem-server: Elasticsearch's API in memory. What it holds is gone when it stops; it is a projection, made again."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from chassis.config import PREFIX, ConfigError, load
from chassis.errors import Internal
from devstack.engine import Engine, loopback
from devstack.errors import EngineError
from devstack.home import Home
from search_svc.adapters.engine import Access
from search_svc.adapters.engine import Engine as Client
from search_svc.engine_config import EngineConfig

ACCESS = tuple(f"{PREFIX}{name.upper()}" for name in EngineConfig.model_fields if name.startswith("elasticsearch_"))


class SearchServer(Engine):
    """Elasticsearch's HTTP API; `url` is its root."""

    name = "elasticsearch"
    title = "Elasticsearch"
    variable = "POLYMART_ELASTICSEARCH_URL"
    schemes = ("http", "https")
    example = "http://host:9200"

    def local_url(self, port: int) -> str:
        return f"http://{loopback(port)}"

    def __init__(self, home: Home):
        super().__init__(home)
        self._access = Access()
        if self.external:
            try:
                told = {name: home.environ[name] for name in ACCESS if name in home.environ}
                self._access = load(EngineConfig, told).access
            except ConfigError as error:
                cause = "; ".join(error.problems)
                raise EngineError(self.title, cause, "correct that, or unset it") from None

    def settings(self) -> dict[str, str]:
        """Variables that tell a service how to reach it, without the prefix."""
        told = {name: self.home.environ.get(name) for name in ACCESS} if self.external else {}
        named = {name.removeprefix(PREFIX): value for name, value in told.items() if value}
        return {**named, "ELASTICSEARCH_URL": self.url}

    async def check(self, url: str) -> None:
        client = Client(url, self._access, timeout=2)
        await client.open()
        try:
            features = await client.features()
            if not features.version:
                raise ConnectionError("what answers there is no search engine")
        except Internal as error:
            raise ConnectionError(f"it refuses to say what it is: {error}") from error
        finally:
            await client.close()

    def command(self) -> Sequence[str | Path]:
        spec = find_spec("osmem_server")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            program = Path(folder) / "bin" / "osmem-server"
            if program.exists():
                return [program, "-addr", loopback(self.port), "-no-stdin-watch", "-no-ja"]
        remedy = f"install the `stack` extra of this package, or name a server in {self.variable}"
        raise EngineError(self.title, "osmem-server is missing (wheel osmem-server)", remedy)
