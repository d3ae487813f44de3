"""The supervisor: engines, streams, and what other processes are told. Services are in the end-to-end tests."""

import asyncio
import os
import signal
import time
from pathlib import Path

import nats
import pytest

from devstack.engines import Engines
from devstack.errors import EngineError
from devstack.home import Home
from devstack.services import SERVICES, service_environment
from devstack.stack import Stack, load


async def test_it_can_be_found_and_mends_what_dies(folder: Path, plain: dict[str, str]) -> None:
    async with Stack(folder, services=(), environ=plain) as stack:
        info = load(folder)
        assert info == stack.info()
        assert info.mailbox == stack.mailbox
        assert set(info.memory()) == {"postgres", "nats", "mongodb", "elasticsearch", "smtp"}
        assert all(used > 2**20 for used in info.memory().values())
        assert not any("@" in shown for shown in info.endpoints().values())

        client = await nats.connect(info.nats_url)
        assert "EVT_CATALOG" in {stream.config.name for stream in await client.jetstream().streams_info()}
        await client.close()

        broker = stack.engines["nats"].process
        first = broker.identity
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while broker.identity == first or not broker.running:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

        await stack.kill_engine("elasticsearch", signal.SIGTERM)
        await stack.engines["elasticsearch"].process.wait()
        await stack.restart_engine("elasticsearch")
        assert load(folder).nats_url == info.nats_url
    with pytest.raises(EngineError, match="none runs"):
        load(folder)


def test_a_service_is_told_of_its_own_stores_alone(folder: Path, plain: dict[str, str]) -> None:
    environ = {
        **plain,
        "POLYMART_POSTGRES_ADMIN_URL": "postgresql://admin:secret@127.0.0.1:5432/postgres",
        "POLYMART_NATS_URL": "nats://127.0.0.1:4222",
        "POLYMART_MONGODB_URL": "mongodb://127.0.0.1:27017/",
        "POLYMART_SMTP_ADDRESS": "127.0.0.1:25",
        "POLYMART_LOG_LEVEL": "DEBUG",
    }
    engines = Engines(Home(folder, environ=environ))
    addresses = {service: f"127.0.0.1:{number}" for number, service in enumerate(SERVICES, 5000)}
    told = {
        service: {
            name
            for name, value in service_environment(
                service, engines, address="127.0.0.1:1", metrics_address="127.0.0.1:2", addresses=addresses
            ).items()
            if name.startswith("POLYMART_")
        }
        for service in ("catalog_svc", "search_svc", "email_svc")
    }
    common = {f"POLYMART_{name}" for name in ("GRPC_ADDRESS", "METRICS_ADDRESS", "NATS_URL", "LOG_LEVEL")}
    assert told["catalog_svc"] == common | {"POLYMART_MONGODB_URL", "POLYMART_TOKEN_KEY"}
    assert told["email_svc"] == common | {"POLYMART_SMTP_ADDRESS", "POLYMART_CUSTOMER_ADDRESS"}
    assert told["search_svc"] == common | {
        "POLYMART_ELASTICSEARCH_URL",
        "POLYMART_CATALOG_ADDRESS",
        "POLYMART_INVENTORY_ADDRESS",
        "POLYMART_TOKEN_KEY",
    }
