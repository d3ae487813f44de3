"""As whom and over what the engine is asked: a gate with TLS and a lock stands before a real one."""

import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from chassis.errors import Unavailable
from devstack.engine import Engine as Server
from devstack.errors import EngineError
from devstack.home import Home
from devstack.search import SearchServer
from search_svc.adapters.engine import Access, Engine
from search_svc.adapters.indices import Indices
from tests.conftest import emptied

KEY = "aWQ6a2V5"
ALLOWED = {"Basic " + base64.b64encode(b"search:p@ss:w\xc3\xb6rd").decode(), f"ApiKey {KEY}"}


@dataclass(frozen=True)
class Gate:
    """Where it is, and the authority whose certificate it shows."""

    port: int
    ca_file: str

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@pytest.fixture
async def gate(osmem: Server, tmp_path: Path) -> AsyncIterator[Gate]:
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url = emptied(osmem)
    async with aiohttp.ClientSession() as session:

        async def pass_on(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") not in ALLOWED:
                return web.json_response({"error": "who is it?"}, status=401)
            headers = {k: v for k, v in request.headers.items() if k in ("Content-Type", "Accept")}
            asked = session.request(request.method, url + request.path_qs, data=await request.read(), headers=headers)
            async with asked as answer:
                body = await answer.read()
                return web.Response(
                    body=body, status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
                )

        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield Gate(runner.addresses[0][1], str(ca_file))
        await runner.cleanup()


async def asked(url: str, access: Access) -> str:
    """What the engine says it is; an index is made and read too."""
    engine = Engine(url, access)
    await engine.open()
    try:
        kind = (await engine.features()).kind
        indices = Indices(engine)
        await indices.migrate()
        (index,) = await indices.targets()
        assert await index.products.read(["p"]) == {}
        return kind
    finally:
        await engine.close()


async def test_a_user_with_a_password_in_a_setting_or_in_the_url(gate: Gate) -> None:
    access = Access(user="search", password="p@ss:wörd", ca_file=gate.ca_file)
    assert await asked(gate.url, access) == "osmem"
    url = gate.url.replace("//", "//search:p%40ss%3Aw%C3%B6rd@")
    assert await asked(url, Access(ca_file=gate.ca_file)) == "osmem"


async def test_an_api_key(gate: Gate) -> None:
    assert await asked(gate.url, Access(api_key=KEY, ca_file=gate.ca_file)) == "osmem"


async def test_whoever_is_not_let_in_is_told_unavailable_until_that_is_mended(gate: Gate) -> None:
    for access in (Access(ca_file=gate.ca_file), Access(api_key="d3Jvbmc=", ca_file=gate.ca_file)):
        with pytest.raises(Unavailable, match="401"):
            await asked(gate.url, access)


async def test_a_certificate_of_an_unknown_authority_is_refused_unless_any_is_taken(gate: Gate) -> None:
    with pytest.raises(Unavailable, match="certificate"):
        await asked(gate.url, Access(api_key=KEY))
    assert await asked(gate.url, Access(api_key=KEY, verify=False)) == "osmem"


async def test_a_certificate_of_another_name_is_refused(gate: Gate) -> None:
    with pytest.raises(Unavailable, match="certificate"):
        await asked(f"https://127.0.0.1:{gate.port}", Access(api_key=KEY, ca_file=gate.ca_file))


def server(folder: Path, **settings: str) -> SearchServer:
    return SearchServer(Home(folder, environ={f"POLYMART_ELASTICSEARCH_{k}": v for k, v in settings.items()}))


async def test_the_stack_reaches_an_engine_elsewhere_as_the_service_will(gate: Gate, tmp_path: Path) -> None:
    engine = server(tmp_path, URL=gate.url, API_KEY=KEY, CA_FILE=gate.ca_file)
    await engine.start()
    told = {"ELASTICSEARCH_URL": gate.url, "ELASTICSEARCH_API_KEY": KEY, "ELASTICSEARCH_CA_FILE": gate.ca_file}
    assert engine.settings() == told


async def test_the_stack_says_who_was_not_let_in_at_once(gate: Gate, tmp_path: Path) -> None:
    engine = server(tmp_path, URL=gate.url, USER="search", PASSWORD="s3cret", CA_FILE=gate.ca_file)
    with pytest.raises(EngineError, match="401") as failure:
        await engine.start()
    assert "s3cret" not in str(failure.value)


def test_the_stack_names_every_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"USER.*CA_FILE"):
        server(tmp_path, URL="https://engine:9200", USER="a:b", CA_FILE="/nowhere")
