"""From an event to an e-mail, with customer_svc, notification_svc and email_svc in one process."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from polymart.customer.v1.customer_pb2 import Customer, MutedNotification
from polymart.customer.v1.customer_service_pb2 import (
    EraseCustomerRequest,
    GetCustomerRequest,
    RequestEmailVerificationRequest,
    UpdateCustomerRequest,
    VerifyEmailRequest,
)
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationSending, NotificationSent
from polymart.inventory.v1.events_pb2 import StockRanLow
from polymart.notification.v1.events_pb2 import NotificationCreated
from polymart.notification.v1.notification_pb2 import (
    NOTIFICATION_CHANNEL_EMAIL,
    NOTIFICATION_KIND_LOW_STOCK,
    NOTIFICATION_KIND_ORDER_CONFIRMED,
    NOTIFICATION_STATUS_IN_PROGRESS,
    NOTIFICATION_STATUS_PROCESSED,
    Notification,
)
from polymart.notification.v1.notification_service_pb2 import WatchNotificationsRequest

from chassis.messaging.dead_letters import DeadLetters
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from tests.conftest import Engine, spawn, stop, until
from tests.integration.email.support import MERCHANT, Shop, address

STREAMS = ("EVT_CUSTOMER", "EVT_ORDER", "EVT_NOTIFICATION", "EVT_EMAIL")


@pytest.fixture
async def shop(nats: Engine, fresh_nats: Nats, fresh_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Shop]:
    shop = await Shop.open(fresh_nats, nats.url, fresh_database)
    yield shop
    await shop.close()


async def no_dead_letters(shop: Shop) -> None:
    assert (await shop.nats.js.stream_info("DLQ")).state.messages == 0


async def test_a_confirmed_order_is_announced_being_sent_and_processed(shop: Shop) -> None:
    await shop.register("ada")
    (welcome,) = await shop.come_to("PROCESSED", 1)
    assert not welcome.content.order_id
    shop.mail.held = asyncio.Event()
    (order,) = await shop.confirm("ada")
    (told,) = await shop.come_to("IN_PROGRESS", 1)
    assert (told.kind, told.attempt) == (NOTIFICATION_KIND_ORDER_CONFIRMED, 1)
    shop.mail.held.set()
    await shop.come_to("PROCESSED", 2)
    (told,) = await shop.notifications(order_id=order.aggregate_id)
    (mail,) = [m for m in shop.mail.to("ada") if m["X-Polymart-Order-Id"] == order.aggregate_id]
    assert mail["Message-ID"] == told.message_id
    assert mail["X-Polymart-Notification-Id"] == told.notification_id
    assert mail["From"] == "Polymart <shop@polymart.example>"
    body = mail.get_body(["plain"])
    assert body is not None
    assert "2 x White Hanging Heart: 5.10 GBP" in body.get_content()
    for event in await shop.stream("EVT_NOTIFICATION") + await shop.stream("EVT_EMAIL"):
        if event.aggregate_id == told.notification_id:
            assert event.correlation_id == order.correlation_id
            assert (event.traceparent or "").split("-")[1] == order.aggregate_id.replace("-", "")


async def test_a_hundred_are_delivered_once_each_and_nothing_changes_when_all_streams_come_again(shop: Shop) -> None:
    names = [f"c{n}" for n in range(20)]
    await asyncio.gather(*map(shop.register, names))
    await shop.confirm(*names * 4)
    await shop.come_to("PROCESSED", 100)
    await shop.quiet()
    assert len({mail["Message-ID"] for mail in shop.mail.mails}) == len(shop.mail.mails) == 100
    digest, stored = await shop.digest(), {name: await shop.stream(name) for name in STREAMS}
    assert Counter(type(e.payload) for e in stored["EVT_EMAIL"]) == {NotificationSending: 100, NotificationSent: 100}

    for name in STREAMS:
        await shop.nats.js.delete_stream(name)
    # The subscriptions make their streams again; the broker remembers none of the ids.
    for name in STREAMS:
        await until(lambda name=name: _exists(shop.nats, name))
    await Publisher(shop.nats).send([envelope for envelopes in stored.values() for envelope in reversed(envelopes)])
    await shop.quiet()
    assert await shop.digest() == digest
    assert len(shop.mail.mails) == 100
    await no_dead_letters(shop)


async def _exists(nats: Nats, stream: str) -> bool:
    return stream in [info.config.name for info in await nats.js.streams_info()]


async def test_a_process_killed_while_the_server_answers_leaves_one_mail_more_with_the_same_message_id(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.stop("email")
    shop.mail.held = asyncio.Event()
    command = [sys.executable, "-m", "email_svc"]
    process = spawn(command, tmp_path / "email.log", env={**os.environ, **shop.environ("email")})
    try:
        await shop.register("ada")
        await until(lambda: shop.mail.mails, 30)
    finally:
        stop(process, signal.SIGKILL)
    shop.mail.held = None
    # The claim of the dead is respected until it expires, a broker's redelivery before that sends nothing.
    await shop.start("email")
    async with asyncio.timeout(60):
        while not await shop.notifications(status=NOTIFICATION_STATUS_PROCESSED):
            assert len(shop.mail.mails) <= 2
            await asyncio.sleep(0.1)
    (done,) = await shop.notifications(status=NOTIFICATION_STATUS_PROCESSED)
    assert done.attempt == 2
    await shop.quiet()
    assert [mail["Message-ID"] for mail in shop.mail.mails] == [done.message_id] * 2
    await no_dead_letters(shop)


async def test_a_crash_after_the_server_took_the_mail_sends_it_again_with_the_same_message_id(shop: Shop) -> None:
    shop.mail.held = asyncio.Event()
    await shop.register("ada")
    await until(lambda: shop.mail.mails)
    await shop.crash("email")
    shop.mail.held = None
    # Comes again once its acknowledgement is overdue: here at once, from a fresh consumer.
    await shop.nats.js.delete_consumer("EVT_NOTIFICATION", "email_svc-EVT_NOTIFICATION")
    await shop.start("email")
    (done,) = await shop.come_to("PROCESSED", 1)
    assert done.attempt == 2
    assert [mail["Message-ID"] for mail in shop.mail.mails] == [done.message_id] * 2
    await no_dead_letters(shop)


async def test_a_notification_whose_id_is_none_is_a_dead_letter_and_holds_up_nobody(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    bad = [NotificationCreated(notification=Notification(notification_id=id, customer_id="ada")) for id in ("", "a b")]
    await Publisher(shop.nats).send([Envelope.new(event, aggregate_id="x", source="test") for event in bad])
    await shop.confirm("ada")
    await shop.come_to("PROCESSED", 2)
    letters = DeadLetters(shop.nats)

    async def given_up() -> bool:
        return len(await letters.list()) == 2

    await until(given_up, 40)
    assert all("is not a UUID" in letter.error for letter in await letters.list())
    assert len(shop.mail.mails) == 2


async def test_mail_waits_while_the_mail_server_is_down(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    await shop.mail.stop()
    await shop.confirm(*["ada"] * 5)
    await until(lambda: shop.notifications(status=NOTIFICATION_STATUS_IN_PROGRESS))
    await shop.mail.start()
    done = await shop.come_to("PROCESSED", 6)
    assert {n.attempt for n in done} == {1}
    assert len(shop.mail.mails) == 6
    await no_dead_letters(shop)


async def test_mail_waits_while_customer_svc_is_down(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    await shop.stop("customer")
    await shop.confirm(*["ada"] * 5)
    await until(lambda: shop.notifications(status=NOTIFICATION_STATUS_IN_PROGRESS))
    await shop.start("customer")
    await shop.come_to("PROCESSED", 6)
    assert len(shop.mail.mails) == 6
    await no_dead_letters(shop)


async def test_one_that_cannot_be_delivered_fails_with_its_reason_and_holds_up_nobody(shop: Shop) -> None:
    names = ["refused", "greylisted", "hopeless", "ada"]
    await asyncio.gather(*map(shop.register, names), shop.register("silent", email=""))
    await shop.come_to("PROCESSED", 4)
    shop.mail.answers = {
        address("refused"): ["550 no such user"],
        address("greylisted"): ["451 come back", "452 a little later", "421 not now"],
        address("hopeless"): ["451 come back"] * 9,
    }
    await shop.confirm(*names, "silent", "nobody", "\n")
    failed = {n.customer_id: n for n in await shop.come_to("FAILED", 5)}
    assert {name: n.failure for name, n in failed.items()} == {
        "refused": "550 no such user",
        "hopeless": "given up after 4 attempts: 451 come back",
        "silent": "the customer has no e-mail address",
        "nobody": "the customer is unknown",
        "\n": "the customer is unknown",
    }
    assert (failed["refused"].attempt, failed["hopeless"].attempt) == (1, 4)
    await shop.come_to("PROCESSED", 6)
    (late,) = [n for n in await shop.notifications(customer_id="greylisted") if n.content.order_id]
    assert late.attempt == 4
    await shop.quiet()
    assert not await shop.notifications(status=NOTIFICATION_STATUS_IN_PROGRESS)
    events = Counter(type(e.payload) for e in await shop.stream("EVT_EMAIL"))
    assert (events[NotificationSent], events[NotificationFailed]) == (6, 5)
    await no_dead_letters(shop)


def muted(kind: Any) -> MutedNotification:
    return MutedNotification(channel=NOTIFICATION_CHANNEL_EMAIL, kind=kind)


async def test_what_a_customer_has_muted_is_stored_and_not_sent_until_they_want_it_again(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    await shop.change("ada", muted_notifications=[muted(NOTIFICATION_KIND_ORDER_CONFIRMED)])
    (order,) = await shop.confirm("ada")
    await shop.come_to("PROCESSED", 2)
    (told,) = await shop.notifications(order_id=order.aggregate_id)
    assert (told.muted, told.message_id, told.attempt) == (True, "", 1)
    assert len(shop.mail.mails) == 1
    await shop.clients["customer"].stub.UpdateCustomer(
        UpdateCustomerRequest(
            customer=Customer(customer_id="ada"), update_mask=FieldMask(paths=["muted_notifications"])
        ),
        timeout=5,
    )
    await shop.confirm("ada")
    await shop.come_to("PROCESSED", 3)
    assert len(shop.mail.mails) == 2
    await no_dead_letters(shop)


async def test_an_address_is_verified_with_the_code_in_the_mail(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    customers = shop.clients["customer"].stub
    await customers.RequestEmailVerification(RequestEmailVerificationRequest(customer_id="ada"), timeout=5)
    await shop.come_to("PROCESSED", 2)
    body = shop.mail.mails[-1].get_body(["plain"])
    assert body is not None
    code = body.get_content().split("yours:")[1].split()[0]
    verified = await customers.VerifyEmail(VerifyEmailRequest(customer_id="ada", code=code), timeout=5)
    assert verified.email_verified
    assert (await customers.GetCustomer(GetCustomerRequest(customer_id="ada"), timeout=5)).email_verified
    for stream in ("EVT_CUSTOMER", "EVT_NOTIFICATION", "EVT_EMAIL"):
        for event in await shop.stream(stream):
            assert code.encode() not in event.data, "the code travels sealed"


async def test_an_operators_retry_sends_with_the_message_id_it_would_have_had(shop: Shop) -> None:
    shop.mail.answers = {address("ada"): ["550 5.1.1 no such user"]}
    await shop.register("ada")
    (failed,) = await shop.come_to("FAILED", 1)
    assert (failed.failure, failed.HasField("start_time"), failed.HasField("end_time")) == (
        "550 5.1.1 no such user", True, True,
    )  # fmt: skip
    await shop.retry(failed.notification_id)
    (done,) = await shop.come_to("PROCESSED", 1)
    assert (done.attempt, done.failure) == (2, "")
    assert done.start_time.ToDatetime() > failed.end_time.ToDatetime()
    (mail,) = shop.mail.mails
    assert mail["Message-ID"] == done.message_id == f"<{done.notification_id}@polymart.example>"
    await shop.quiet()
    await no_dead_letters(shop)


async def test_the_merchant_is_written_to_about_stock_that_runs_low(shop: Shop) -> None:
    low = StockRanLow(sku="MUG", available=2, low_stock=5, version=3)
    await Publisher(shop.nats).send([Envelope.new(low, aggregate_id="MUG", source="inventory_svc")])
    (told,) = await shop.come_to("PROCESSED", 1)
    assert (told.kind, told.customer_id, told.content.low_stock.sku) == (NOTIFICATION_KIND_LOW_STOCK, "", "MUG")
    (mail,) = shop.mail.mails
    assert (mail["To"], mail["Subject"]) == (MERCHANT, "Stock of MUG runs low")


async def test_who_is_erased_meanwhile_is_not_written_to(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    await shop.stop("email")
    (order,) = await shop.confirm("ada")
    await until(lambda: shop.notifications(order_id=order.aggregate_id))
    await shop.clients["customer"].stub.EraseCustomer(EraseCustomerRequest(customer_id="ada"), timeout=5)
    await shop.start("email")
    (failed,) = await shop.come_to("FAILED", 1)
    assert failed.failure == "the customer is unknown"
    await shop.quiet()
    assert len(shop.mail.mails) == 1
    assert not any(n.content.ByteSize() for n in await shop.notifications())
    await no_dead_letters(shop)


async def test_a_watcher_sees_what_is_stored_while_it_watches(shop: Shop) -> None:
    await shop.register("ada")
    await shop.come_to("PROCESSED", 1)
    call = shop.clients["notification"].stub.WatchNotifications(WatchNotificationsRequest(customer_id="ada"))
    await call.initial_metadata()
    orders = await shop.confirm(*["ada"] * 30)
    async with asyncio.timeout(15):
        seen = [(await call.read()).content.order_id for _ in orders]
    assert sorted(seen) == sorted(order.aggregate_id for order in orders)
    call.cancel()
