"""osmem-server: Elasticsearch's API in memory. What it holds is gone when it stops; it is a projection, made again."""

import asyncio
import base64
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from devstack.engine import Engine, loopback
from devstack.errors import EngineError


class SearchServer(Engine):
    """Elasticsearch's HTTP API; `url` is its root."""

    name = "elasticsearch"
    title = "Elasticsearch"
    variable = "POLYMART_ELASTICSEARCH_URL"
    schemes = ("http", "https")
    example = "http://host:9200"

    def local_url(self, port: int) -> str:
        return f"http://{loopback(port)}"

    async def check(self, url: str) -> None:
        answer = await asyncio.to_thread(ask, url)
        if not (isinstance(answer, dict) and isinstance(answer.get("version"), dict)):
            raise ConnectionError("what answers there is no search engine")

    def command(self) -> Sequence[str | Path]:
        spec = find_spec("osmem_server")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            program = Path(folder) / "bin" / "osmem-server"
            if program.exists():
                return [program, "-addr", loopback(self.port), "-no-stdin-watch", "-no-ja"]
        remedy = f"install the `stack` extra of this package, or name a server in {self.variable}"
        raise EngineError(self.title, "osmem-server is missing (wheel osmem-server)", remedy)


def ask(url: str) -> object:
    parts = urlsplit(url)
    request = Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    with urlopen(request, timeout=2) as response:
        return json.load(response)
