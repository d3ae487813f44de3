"""customer_svc over gRPC, on PostgreSQL and NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from polymart.customer.v1.customer_pb2 import Address, Customer, MutedNotification, PersonalData
from polymart.customer.v1.customer_service_pb2 import (
    CreateCustomerRequest,
    EraseCustomerRequest,
    ExportCustomerRequest,
    GetCustomerRequest,
    OpenPersonalDataRequest,
    RequestEmailVerificationRequest,
    UpdateCustomerRequest,
    VerifyEmailRequest,
)
from polymart.customer.v1.customer_service_pb2_grpc import CustomerServiceStub
from polymart.customer.v1.events_pb2 import CustomerErased, EmailVerificationRequested
from polymart.notification.v1.notification_pb2 import (
    NOTIFICATION_CHANNEL_EMAIL,
    NOTIFICATION_KIND_LOW_STOCK,
    NOTIFICATION_KIND_ORDER_CONFIRMED,
    NOTIFICATION_KIND_WELCOME,
)

from chassis.config import load
from chassis.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PolymartError,
    ResourceExhausted,
    Unavailable,
)
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology
from chassis.rpc.client import RpcClient, translated
from chassis.service import start
from customer_svc.bootstrap import build, migrate
from customer_svc.config import CustomerConfig
from tests.conftest import NatsServer, free_port, until

Published = Callable[[], Awaitable[list[Message]]]

HOME = Address(label="home", lines=["1 St James's Square"], locality="London", country_code="GB")
NO_WELCOME = MutedNotification(channel=NOTIFICATION_CHANNEL_EMAIL, kind=NOTIFICATION_KIND_WELCOME)
ADA = Customer(
    customer_id="ada",
    display_name="Ada Lovelace",
    email="ada@example.org",
    country="United Kingdom",
    addresses=[HOME],
    muted_notifications=[NO_WELCOME],
)


class Client:
    def __init__(self, stub: Any, database: str):
        self._stub = stub
        self.database = database

    async def create(self, customer: Customer) -> Customer:
        return await self._call(self._stub.CreateCustomer, CreateCustomerRequest(customer=customer))

    async def get(self, customer_id: str) -> Customer:
        return await self._call(self._stub.GetCustomer, GetCustomerRequest(customer_id=customer_id))

    async def update(self, *paths: str, **fields: Any) -> Customer:
        request = UpdateCustomerRequest(customer=Customer(**fields), update_mask=FieldMask(paths=paths))
        return await self._call(self._stub.UpdateCustomer, request)

    async def send_code(self, customer_id: str) -> None:
        await self._call(self._stub.RequestEmailVerification, RequestEmailVerificationRequest(customer_id=customer_id))

    async def verify(self, customer_id: str, code: str) -> Customer:
        return await self._call(self._stub.VerifyEmail, VerifyEmailRequest(customer_id=customer_id, code=code))

    async def erase(self, customer_id: str) -> None:
        await self._call(self._stub.EraseCustomer, EraseCustomerRequest(customer_id=customer_id))

    async def open(self, customer_id: str, personal_data: bytes) -> PersonalData:
        request = OpenPersonalDataRequest(customer_id=customer_id, personal_data=personal_data)
        opened = await self._call(self._stub.OpenPersonalData, request)
        assert isinstance(opened, PersonalData)
        return opened

    async def export(self, customer_id: str) -> list[Any]:
        with translated("customer_svc"):
            stream = self._stub.ExportCustomer(ExportCustomerRequest(customer_id=customer_id), timeout=10)
            return [part async for part in stream]

    async def execute(self, query: str) -> list[Any]:
        connection = await asyncpg.connect(self.database)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        with translated("customer_svc"):
            return await method(request, timeout=10)


@pytest.fixture
async def client(own_nats: NatsServer, database: str) -> AsyncIterator[Client]:
    # Where others are asked for their parts of an export there is nobody.
    others = {f"POLYMART_{name}_ADDRESS": f"127.0.0.1:{free_port()}" for name in ("ORDER", "NOTIFICATION")}
    environ = {"POLYMART_POSTGRES_URL": database, "POLYMART_NATS_URL": own_nats.url, **others}
    config = load(CustomerConfig, environ)
    await migrate(config)
    running = await start(build(config))
    await running.ready()
    peer = RpcClient(running.address, CustomerServiceStub)
    await peer.open()
    yield Client(peer.stub, database)
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
    assert not emptied.addresses
    assert not emptied.muted_notifications
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
    twice = [MutedNotification(channel=NOTIFICATION_CHANNEL_EMAIL, kind=NOTIFICATION_KIND_ORDER_CONFIRMED)] * 2
    low_stock = MutedNotification(channel=NOTIFICATION_CHANNEL_EMAIL, kind=NOTIFICATION_KIND_LOW_STOCK)
    strange = MutedNotification(channel=9, kind=NOTIFICATION_KIND_WELCOME)  # type: ignore[arg-type]
    muted = [*twice, low_stock, MutedNotification(), strange]
    bad_parts = Customer(
        customer_id="x", addresses=[HOME, HOME, Address(country_code="Norway")], muted_notifications=muted
    )
    assert await violations(client.create(bad_parts)) == [
        "customer.addresses[1].label",
        "customer.addresses[2].country_code",
        "customer.addresses[2].label",
        "customer.addresses[2].lines",
        "customer.addresses[2].locality",
        "customer.muted_notifications[1]",
        "customer.muted_notifications[2].kind",
        "customer.muted_notifications[3].channel",
        "customer.muted_notifications[3].kind",
        "customer.muted_notifications[4].channel",
    ]
    assert await violations(client.get("")) == ["customer_id"]
    assert await violations(client.get("\0")) == ["customer_id"]
    fields = await violations(client.update("email", "version", "nonsense", email="nobody"))
    assert fields[:2] == ["customer.customer_id", "customer.email"]
    assert len(fields) == 4
    assert "customer.email" in await violations(client.update("email", customer_id="ada", email="nobody"))


async def test_addresses_and_what_is_muted_are_replaced_as_a_whole(client: Client) -> None:
    assert (await client.create(ADA)).addresses == [HOME]
    work = Address(
        label="work", recipient="C. Babbage", lines=["1 Dorset Street"], locality="London", country_code="GB"
    )
    changed = await client.update("addresses", customer_id="ada", addresses=[work, HOME])
    assert list(changed.addresses) == [work, HOME]
    assert list(changed.muted_notifications) == [NO_WELCOME]
    no_orders = MutedNotification(channel=NOTIFICATION_CHANNEL_EMAIL, kind=NOTIFICATION_KIND_ORDER_CONFIRMED)
    changed = await client.update(customer_id="ada", muted_notifications=[no_orders])
    assert (list(changed.muted_notifications), list(changed.addresses)) == ([no_orders], [work, HOME])
    assert await client.get("ada") == changed
    assert not (await client.update("muted_notifications", customer_id="ada")).muted_notifications


@pytest.fixture
async def published(own_nats: NatsServer) -> AsyncIterator[Published]:
    """All that the service has published so far."""
    nats = Nats(own_nats.url, "test")
    await nats.open()
    await ensure_topology(nats)

    async def events() -> list[Message]:
        state = (await nats.js.stream_info("EVT_CUSTOMER")).state
        messages = [await nats.js.get_msg("EVT_CUSTOMER", n) for n in range(1, state.last_seq + 1)]
        return [Envelope.decode(str(m.subject), m.headers, m.data or b"").payload for m in messages]

    yield events
    await nats.close()


async def events(published: Published, count: int) -> list[Any]:
    async def there() -> bool:
        return len(await published()) == count

    await until(there)
    return await published()


async def refused(call: Awaitable[object], error: type[PolymartError], reason: str) -> None:
    with pytest.raises(error) as caught:
        await call
    assert caught.value.reason == reason


async def test_an_address_is_verified_by_the_last_code_sent_there(client: Client, published: Published) -> None:
    await client.create(ADA)
    await client.send_code("ada")
    await refused(client.send_code("ada"), ResourceExhausted, "CODE_JUST_SENT")
    _, first = await events(published, 2)
    assert isinstance(first, EmailVerificationRequested)
    code = (await client.open("ada", first.personal_data)).verification_code
    assert code.encode() not in first.SerializeToString()
    await refused(client.verify("ada", "another"), FailedPrecondition, "CODE_REFUSED")
    assert not (await client.get("ada")).email_verified
    await client.execute("UPDATE email_verifications SET request_time = request_time - interval '61 s'")
    await client.send_code("ada")
    await refused(client.verify("ada", code), FailedPrecondition, "CODE_REFUSED")
    code = (await client.open("ada", (await events(published, 3))[2].personal_data)).verification_code
    verified = await client.verify("ada", f" {code}\n")
    assert (verified.email_verified, verified.version) == (True, 2)
    assert await client.verify("ada", code) == verified, "again is no write"
    await refused(client.send_code("ada"), FailedPrecondition, "EMAIL_VERIFIED")
    changed = await client.update(customer_id="ada", email="ada@example.net")
    assert not changed.email_verified
    await refused(client.verify("ada", code), FailedPrecondition, "CODE_REFUSED")
    await client.update("email", customer_id="ada")
    await refused(client.send_code("ada"), FailedPrecondition, "EMAIL_MISSING")
    await refused(client.send_code("nobody"), NotFound, "CUSTOMER_NOT_FOUND")


async def test_a_code_is_good_for_a_day(client: Client, published: Published) -> None:
    await client.create(ADA)
    await client.send_code("ada")
    code = (await client.open("ada", (await events(published, 2))[1].personal_data)).verification_code
    await client.execute("UPDATE email_verifications SET request_time = request_time - interval '1 day'")
    await refused(client.verify("ada", code), FailedPrecondition, "CODE_REFUSED")


async def test_who_is_erased_is_nobody_any_more_and_what_was_published_cannot_be_opened(
    client: Client, published: Published
) -> None:
    await client.create(ADA)
    await client.create(Customer(customer_id="bob", display_name="Bob"))
    await client.send_code("ada")
    registered, other, requested = await events(published, 3)
    assert (await client.open("ada", registered.personal_data)).customer == await client.get("ada")
    for wrong in (other.personal_data, b"nothing", registered.personal_data[:-1]):
        assert await violations(client.open("ada", wrong)) == ["personal_data"]
    await asyncio.gather(*(client.erase("ada") for _ in range(5)))
    *_, erased = await events(published, 4)
    assert erased == CustomerErased(customer_id="ada", version=2)
    for call in (
        client.get("ada"), client.update(customer_id="ada", country="x"), client.send_code("ada"),
        client.verify("ada", "x"), client.export("ada"),
    ):  # fmt: skip
        await refused(call, NotFound, "CUSTOMER_ERASED")
    for event in (registered, requested):
        await refused(client.open("ada", event.personal_data), NotFound, "CUSTOMER_NOT_FOUND")
    for customer in (ADA, Customer(customer_id="ada")):
        await refused(client.create(customer), AlreadyExists, "CUSTOMER_EXISTS")
    await refused(client.erase("nobody"), NotFound, "CUSTOMER_NOT_FOUND")
    assert [row["customer_id"] for row in await client.execute("SELECT customer_id FROM customer_keys")] == ["bob"]
    assert await client.execute("SELECT * FROM email_verifications") == []
    assert (await client.open("bob", other.personal_data)).customer.display_name == "Bob"


async def test_an_export_fails_rather_than_be_incomplete(client: Client) -> None:
    await client.create(ADA)
    await refused(client.export("ada"), Unavailable, "UNAVAILABLE")
    await refused(client.export("nobody"), NotFound, "CUSTOMER_NOT_FOUND")


async def test_events_wait_while_nats_is_down_and_then_follow_in_order(client: Client, own_nats: NatsServer) -> None:
    own_nats.kill()
    created = await client.create(ADA)
    changed = await client.update(customer_id="ada", country="France")
    await client.update(customer_id="ada", country="France")
    own_nats.start()
    nats = Nats(own_nats.url, "test")
    await nats.open()
    await ensure_topology(nats)

    async def both() -> bool:
        return (await nats.js.stream_info("EVT_CUSTOMER")).state.messages == 2

    await until(both)
    for sequence, customer in ((1, created), (2, changed)):
        message = await nats.js.get_msg("EVT_CUSTOMER", sequence)
        event: Any = Envelope.decode(str(message.subject), message.headers, message.data or b"").payload
        assert (event.customer_id, event.version, event.has_email) == ("ada", customer.version, True)
        assert b"ada@example.org" not in (message.data or b"")
        assert (await client.open("ada", event.personal_data)).customer == customer
    await nats.close()
