"""OpenSearch as the stack starts it: what it keeps, and what is said where it can't be had."""

import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from devstack import jars
from devstack.engine import Engine
from devstack.engines import Engines
from devstack.errors import EngineError
from devstack.home import Home
from devstack.opensearch import LOCK, OpenSearch
from devstack.search import SearchServer
from search_svc.adapters.engine import Engine as Client
from tests.conftest import started

INDEX = "kept"


@pytest.fixture
async def opensearch(tmp_path: Path) -> AsyncIterator[Engine]:
    """One of the test's own, to kill."""
    environ = {name: value for name, value in os.environ.items() if name != SearchServer.variable}
    async with started(OpenSearch, tmp_path, environ) as engine:
        yield engine


async def documents(url: str) -> int:
    client = Client(url)
    await client.open()
    try:
        await client.client.indices.refresh(index=INDEX)
        return int((await client.client.count(index=INDEX))["count"])
    finally:
        await client.close()


async def test_what_it_acknowledged_outlives_being_killed_and_being_stopped(opensearch: Engine) -> None:
    client = Client(opensearch.url)
    await client.open()
    await client.client.indices.create(index=INDEX, settings={"number_of_shards": 1, "number_of_replicas": 0})
    for number in range(50):
        await client.client.index(index=INDEX, id=str(number), document={"n": number})
    await opensearch.kill(signal.SIGKILL)
    await client.close()
    await opensearch.restart()
    assert await documents(opensearch.url) == 50
    await opensearch.restart()
    assert await documents(opensearch.url) == 50


def test_a_setting_says_which_search_engine_is_started(tmp_path: Path) -> None:
    def chosen(**environ: str) -> type[Engine]:
        return type(Engines(Home(tmp_path, environ=environ), {"elasticsearch"})["elasticsearch"])

    assert chosen() is SearchServer
    assert chosen(POLYMART_SEARCH_ENGINE="osmem") is SearchServer
    assert chosen(POLYMART_SEARCH_ENGINE="opensearch") is OpenSearch
    with pytest.raises(EngineError, match=r"POLYMART_SEARCH_ENGINE names 'solr'.*osmem or opensearch"):
        chosen(POLYMART_SEARCH_ENGINE="solr")


def test_a_java_that_is_too_old_or_missing_is_said_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "_USUAL", ())
    monkeypatch.setattr(jars, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"Java 21 or newer .none was found.*JAVA_HOME"):
        jars.find_java("OpenSearch", {"PATH": ""})
    old = tmp_path / "bin" / "java"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\" 2025-04-15' >&2\n")
    old.chmod(0o755)
    with pytest.raises(EngineError, match=r"bin/java is 17\).*JAVA_HOME"):
        jars.find_java("OpenSearch", {"PATH": "", "JAVA_HOME": str(tmp_path)})
    old.write_text("#!/bin/sh\necho 'openjdk version \"21\" 2023-09-19' >&2\n")
    assert jars.find_java("OpenSearch", {"PATH": "", "JAVA_HOME": str(tmp_path)}).program == old


def test_jars_that_nothing_can_fetch_are_said_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"neither Maven .* nor jgo.*install the `opensearch` extra"):
        jars.fetched("OpenSearch", tmp_path / "jars", jars.read_lock(LOCK), {"PATH": ""}, lambda _: None)


@pytest.mark.parametrize("fetcher", ["mvn", "jgo"])
def test_jars_are_fetched_and_those_that_are_not_what_is_pinned_are_refused(fetcher: str, tmp_path: Path) -> None:
    if fetcher == "mvn" and not shutil.which("mvn"):
        pytest.skip("there is no Maven on the PATH")
    environ = {"PATH": os.environ["PATH"] if fetcher == "mvn" else ""}
    small = [jar for jar in jars.read_lock(LOCK) if jar.artifact in ("jopt-simple", "reactive-streams")]
    assert len(small) == 2
    (tmp_path / "cache").mkdir()
    bad = [small[0], replace(small[1], sha256="0" * 64)]
    with pytest.raises(EngineError, match=f"not what the lock file pins: {bad[1].file};"):
        jars.fetched("OpenSearch", tmp_path / "cache" / "jars", bad, environ, lambda _: None)
    assert list((tmp_path / "cache").iterdir()) == []
    jars.fetched("OpenSearch", tmp_path / "cache" / "jars", small, environ, lambda _: None)
    assert {file.name for file in (tmp_path / "cache" / "jars").iterdir()} == {jar.file for jar in small}


def test_the_cache_is_where_the_user_keeps_such_things(tmp_path: Path) -> None:
    assert jars.cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "polymart"
    assert jars.cache_folder({"XDG_CACHE_HOME": "relative", "HOME": "/home/u"}) == Path("/home/u/.cache/polymart")
