"""What is known of a customer comes out whole, and what was known of one who is erased can be read nowhere."""

import base64
from collections.abc import Iterator

import asyncpg
import grpc
import pytest
from polymart.customer.v1.customer_pb2 import Address, Customer
from polymart.customer.v1.customer_service_pb2 import (
    CreateCustomerRequest,
    OpenPersonalDataRequest,
    RequestEmailVerificationRequest,
    UpdateCustomerRequest,
)
from polymart.customer.v1.events_pb2 import CustomerRegistered, CustomerUpdated, EmailVerificationRequested
from polymart.notification.v1.notification_service_pb2 import ListNotificationsRequest

from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from tests.e2e.command import polymart
from tests.e2e.shop import TIMEOUT, Shop

SEALED = CustomerRegistered | CustomerUpdated | EmailVerificationRequested
TOKENS = ("tok_approved", "tok_declined")
# Each of them a word that stands nowhere else.
SECRETS = (
    "Quibblewick",
    "quibblewick.old@mailbox.example",
    "quibblewick.new@mailbox.example",
    "Zanzibarstrasse",
    "Ruritania",
)


def readable(text: str, secret: str) -> bool:
    """Whether `text` holds the secret: as it is, as the hexadecimal digits of its bytes, or anywhere in base64."""
    if secret.lower() in text.lower() or secret.encode().hex() in text.lower():
        return True
    # At each of three offsets, without the characters that neighbouring bytes have a part in.
    encoded = (base64.b64encode(b"\0" * n + secret.encode()).decode() for n in range(3))
    return any(form[start : len(form) - 4] in text for start, form in zip((0, 2, 3), encoded, strict=True))


def test_the_search_for_secrets_is_not_blind() -> None:
    secret = SECRETS[1]
    for data in (
        secret.encode(),
        b"x" + secret.encode() + b"yz",
        b"xy" + secret.upper().encode() * 1 + secret.encode(),
    ):
        for text in (repr(data), data.hex(), base64.b64encode(data).decode()):
            assert readable(text, secret), text
    assert not readable("nothing of the kind", secret)


async def tables(url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table of a database, as text."""
    connection = await asyncpg.connect(url)
    try:
        names = await connection.fetch(
            "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'"
        )
        rows = [
            (name["name"], row["row"])
            for name in names
            for row in await connection.fetch(f"SELECT t::text AS row FROM {name['name']} AS t")  # noqa: S608
        ]
    finally:
        await connection.close()
    return iter(rows)


async def streams(nats: Nats) -> Iterator[tuple[str, str]]:
    """Every message of every stream, those behind key-value buckets too, as text."""
    found = []
    for info in await nats.js.streams_info():
        name, state = str(info.config.name), (await nats.js.stream_info(str(info.config.name))).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            try:
                message = await nats.js.get_msg(name, sequence)
            except Exception:  # acknowledged, in a work queue
                continue
            data = message.data or b""
            found.append((name, f"{message.subject} {message.headers} {data!r} {data.hex()}"))
    return iter(found)


async def where_readable(shop: Shop) -> set[str]:
    """The tables and streams that tell one of the secrets."""
    places = set()
    for owner, url in shop.stack.auditor_urls().items():
        places |= {f"{owner}.{name}" for name, text in await tables(url) if any(readable(text, s) for s in SECRETS)}
    nats = Nats(shop.stack.info().nats_url, "privacy test")
    await nats.open()
    try:
        places |= {name for name, text in await streams(nats) if any(readable(text, s) for s in SECRETS)}
    finally:
        await nats.close()
    return places


async def published(shop: Shop, customer_id: str) -> list[bytes]:
    """The sealed personal data in the events of a customer."""
    nats = Nats(shop.stack.info().nats_url, "privacy test")
    await nats.open()
    try:
        state = (await nats.js.stream_info("EVT_CUSTOMER")).state
        messages = [await nats.js.get_msg("EVT_CUSTOMER", n) for n in range(state.first_seq, state.last_seq + 1)]
        events = [Envelope.decode(m.subject or "", m.headers, m.data or b"") for m in messages]
    finally:
        await nats.close()
    return [
        event.payload.personal_data
        for event in events
        if event.aggregate_id == customer_id and isinstance(event.payload, SEALED)
    ]


async def test_a_customer_is_exported_whole_and_after_an_erasure_can_be_read_nowhere(shop: Shop) -> None:
    name, old, new, street, country = SECRETS
    customer = Customer(
        display_name=f"Ann {name}",
        email=old,
        country=country,
        addresses=[Address(label="home", lines=[f"{street} 1"], locality="Strelsau", country_code="RI")],
    )
    customers, notifications = shop.clients.customers, shop.clients.notifications
    customer = await customers.CreateCustomer(CreateCustomerRequest(customer=customer), timeout=TIMEOUT)
    customer_id = customer.customer_id
    (sku,) = await shop.product(stock=10)
    placed = [await shop.settled(await shop.place(sku, customer=customer_id, token=t)) for t in TOKENS]
    await customers.RequestEmailVerification(RequestEmailVerificationRequest(customer_id=customer_id), timeout=TIMEOUT)
    changed = Customer(customer_id=customer_id, email=new)
    await customers.UpdateCustomer(UpdateCustomerRequest(customer=changed), timeout=TIMEOUT)
    await shop.invariants_hold()
    sealed = await published(shop, customer_id)
    assert len(sealed) == 3

    exported = (await polymart(shop, "customer", "export", customer_id)).json()
    assert exported["customer"]["email"] == new
    assert {order["order_id"]: order["lines"][0]["sku"] for order in exported["orders"]} == {
        order.order_id: sku for order in placed
    }
    kinds = sorted(told["kind"].removeprefix("NOTIFICATION_KIND_") for told in exported["notifications"])
    assert kinds == ["EMAIL_VERIFICATION", "ORDER_CONFIRMED", "ORDER_REJECTED", "WELCOME"]
    opened = await customers.OpenPersonalData(
        OpenPersonalDataRequest(customer_id=customer_id, personal_data=sealed[0]), timeout=TIMEOUT
    )
    assert opened.customer.email == old
    assert await where_readable(shop) == {"customer.customers"}, "even before, there is one place"

    ended = await polymart(shop, "customer", "erase", customer_id, "--yes")
    assert ended.code == 0
    await shop.invariants_hold()
    assert await where_readable(shop) == set()
    for data in sealed:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await customers.OpenPersonalData(
                OpenPersonalDataRequest(customer_id=customer_id, personal_data=data), timeout=TIMEOUT
            )
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    ended = await polymart(shop, "customer", "export", customer_id)
    assert (ended.code, "CUSTOMER_ERASED" in ended.err) == (1, True)
    request = ListNotificationsRequest(customer_id=customer_id)
    told = (await notifications.ListNotifications(request, timeout=TIMEOUT)).notifications
    assert len(told) == 4
    assert not any(notification.content.ByteSize() for notification in told)
