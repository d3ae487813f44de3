"""customer_svc over gRPC, on PostgreSQL and NATS."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.customer_service_pb2 import (
    CreateCustomerRequest,
    GetCustomerRequest,
    UpdateCustomerRequest,
)
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceStub

from chassis.config import load
from chassis.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology
from chassis.rpc.client import RpcClient, translated
from chassis.service import start
from customer_svc.bootstrap import build, migrate
from customer_svc.config import CustomerConfig
from tests.conftest import NatsServer, until

ADA = Customer(customer_id="ada", display_name="Ada Lovelace", email="ada@example.org", country="United Kingdom")


class Client:
    def __init__(self, stub: Any):
        self._stub = stub

    async def create(self, customer: Customer) -> Customer:
        return await self._call(self._stub.CreateCustomer, CreateCustomerRequest(customer=customer))

    async def get(self, customer_id: str) -> Customer:
        return await self._call(self._stub.GetCustomer, GetCustomerRequest(customer_id=customer_id))

    async def update(self, *paths: str, **fields: str) -> Customer:
        request = UpdateCustomerRequest(customer=Customer(**fields), update_mask=FieldMask(paths=paths))
        return await self._call(self._stub.UpdateCustomer, request)

    async def _call(self, method: Callable[..., Any], request: Any) -> Customer:
        with translated("customer_svc"):
            customer = await method(request, timeout=10)
        assert isinstance(customer, Customer)
        return customer


@pytest.fixture
async def client(own_nats: NatsServer, database: str) -> AsyncIterator[Client]:
    config = load(CustomerConfig, {"POLYMART_POSTGRES_URL": database, "POLYMART_NATS_URL": own_nats.url})
    await migrate(config)
    running = await start(build(config))
    await running.ready()
    peer = RpcClient(running.address, CustomerServiceStub)
    await peer.open()
    yield Client(peer.stub)
    await peer.close()
    await running.drain_and_stop()


async def violations(call: Any) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        await call
    return sorted(violation.field for violation in caught.value.violations)


async def test_a_customer_is_created_once_however_often_one_asks(client: Client) -> None:
    created = await asyncio.gather(*(client.create(ADA) for _ in range(8)))
    assert all(customer == created[0] for customer in created)
    assert created[0].version == 1
    assert await client.get("ada") == created[0]
    with pytest.raises(AlreadyExists) as caught:
        await client.create(Customer(customer_id="ada", display_name="Somebody else"))
    assert caught.value.reason == "CUSTOMER_EXISTS"
    made = await client.create(Customer(display_name="Nameless"))
    assert len(made.customer_id) == 36


async def test_an_update_changes_what_its_mask_names(client: Client) -> None:
    created = await client.create(ADA)
    changed = await client.update("country", customer_id="ada", country="France", email="ignored", etag=created.etag)
    assert (changed.country, changed.email, changed.version) == ("France", ADA.email, 2)
    assert changed.create_time == created.create_time
    with pytest.raises(Aborted) as caught:
        await client.update("country", customer_id="ada", country="Spain", etag=created.etag)
    assert caught.value.reason == "STALE_ETAG"
    assert await client.update("country", customer_id="ada", country="France") == changed, "no change is no write"
    assert (await client.update(customer_id="ada", display_name="A. L.")).country == "France"
    emptied = await client.update("*", customer_id="ada", display_name="Ada")
    assert (emptied.email, emptied.country, emptied.version) == ("", "", 4)
    await asyncio.gather(*(client.update(customer_id="ada", country=f"c{n}") for n in range(8)))
    assert (await client.get("ada")).version == 12


async def test_who_is_unknown_is_not_found(client: Client) -> None:
    for call in (client.get("nobody"), client.update(customer_id="nobody", country="x")):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "CUSTOMER_NOT_FOUND"


async def test_every_bad_field_is_named(client: Client) -> None:
    bad = Customer(
        customer_id="x" * 129, display_name="a\0b", email="a@b.example\r\nBcc: c@d.example", country="c" * 101
    )
    assert await violations(client.create(bad)) == [
        "customer.country",
        "customer.customer_id",
        "customer.display_name",
        "customer.email",
    ]
    assert await violations(client.get("")) == ["customer_id"]
    assert await violations(client.get("\0")) == ["customer_id"]
    fields = await violations(client.update("email", "version", "nonsense", email="nobody"))
    assert fields[:2] == ["customer.customer_id", "customer.email"]
    assert len(fields) == 4
    assert "customer.email" in await violations(client.update("email", customer_id="ada", email="nobody"))


async def test_events_wait_while_nats_is_down_and_then_follow_in_order(client: Client, own_nats: NatsServer) -> None:
    own_nats.kill()
    created = await client.create(ADA)
    changed = await client.update(customer_id="ada", country="France")
    await client.update(customer_id="ada", country="France")
    own_nats.start()
    nats = Nats(own_nats.url, "test")
    await nats.open()
    await ensure_topology(nats)

    async def published() -> list[Customer]:
        state = (await nats.js.stream_info("EVT_CUSTOMER")).state
        messages = [await nats.js.get_msg("EVT_CUSTOMER", n) for n in range(1, state.last_seq + 1)]
        return [Envelope.decode(str(m.subject), m.headers, m.data or b"").payload.customer for m in messages]  # type: ignore[attr-defined]

    async def both() -> bool:
        return len(await published()) == 2

    await until(both)
    assert await published() == [created, changed]
    await nats.close()
