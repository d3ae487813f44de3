"""notification_svc on PostgreSQL: its reactions in transactions, and its RPCs."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from polymart.customer.v1.customer_pb2 import Customer
from polymart.customer.v1.events_pb2 import CustomerRegistered
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationSending, NotificationSent
from polymart.notification.v1.events_pb2 import NotificationCreated
from polymart.notification.v1.notification_service_pb2 import GetNotificationRequest, ListNotificationsRequest
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed

from chassis.clock import SystemClock
from chassis.config import load
from chassis.errors import InvalidArgument, NotFound
from chassis.ids import derived_id, uuid7
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.envelope import Envelope
from chassis.money import Money
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres
from chassis.rpc.client import RpcClient, translated
from chassis.service import start
from notification_svc.adapters.postgres_notifications import PostgresNotifications
from notification_svc.application.ports import Filter
from notification_svc.bootstrap import build, migrate
from notification_svc.config import NotificationConfig
from notification_svc.domain.notification import Notification, Stage
from notification_svc.entrypoints.messages import handlers
from tests.conftest import Engine

TOTAL = Money.parse("GBP", "5.10").to_proto()


@dataclass
class Rig:
    """The reactions, each batch in a transaction with its inbox rows, as a subscription calls them."""

    db: Postgres
    notifications: PostgresNotifications

    async def react(self, *messages: Envelope) -> None:
        table = handlers(notifications=self.notifications, clock=SystemClock())
        async with PostgresInbox(self.db).begin("test", [m.id for m in messages]) as (tx, fresh):
            by_handler: dict[Any, list[Envelope]] = {}
            for message in messages:
                if message.id in fresh:
                    by_handler.setdefault(table[type(message.payload)], []).append(message)
            for handler, batch in by_handler.items():
                await handler(batch, tx=tx)

    async def all(self) -> Sequence[Notification]:
        return await self.notifications.page(Filter(), None, 1000)

    async def outbox(self) -> list[Envelope]:
        entries = await PostgresOutbox(self.db).pending(1000)
        return [Envelope.decode(e.subject, e.headers, e.data) for e in entries]


def message(payload: Any, about: str) -> Envelope:
    return Envelope.new(payload, aggregate_id=about, source="test")


def confirmed(order_id: str, customer_id: str = "ada") -> Envelope:
    return message(OrderConfirmed(order_id=order_id, customer_id=customer_id, total=TOTAL), order_id)


@pytest.fixture
async def config(database: str, nats: Engine) -> NotificationConfig:
    config = load(NotificationConfig, {"POLYMART_POSTGRES_URL": database, "POLYMART_NATS_URL": nats.url})
    await migrate(config)
    return config


@pytest.fixture
async def rig(config: NotificationConfig) -> AsyncIterator[Rig]:
    db = Postgres(config.postgres_url)
    await db.open()
    yield Rig(db, PostgresNotifications(db, PostgresOutbox(db)))
    await db.close()


async def test_a_batch_makes_one_notification_of_each_fact_and_announces_it_once(rig: Rig) -> None:
    first, again = confirmed("o1"), confirmed("o1")
    welcome = message(CustomerRegistered(customer=Customer(customer_id="ada", email="ada@example.org")), "ada")
    cancelled = message(OrderCancelled(order_id="o1", customer_id="ada", total=TOTAL), "o1")
    guest = confirmed("o2", customer_id="")
    await rig.react(first, again, welcome, guest, cancelled)
    await rig.react(first, again)
    await rig.react(confirmed("o1"), welcome)
    stored = {n.notification_id: n for n in await rig.all()}
    announced = await rig.outbox()
    assert len(stored) == len(announced) == 3
    for event in announced:
        assert isinstance(event.payload, NotificationCreated)
        assert event.id == derived_id(event.aggregate_id, "created")
        assert event.aggregate_id in stored
    assert {e.causation_id for e in announced} == {first.id, welcome.id, cancelled.id}
    assert {e.correlation_id for e in announced} == {first.correlation_id, welcome.correlation_id, cancelled.id}


async def test_reports_come_to_the_same_however_they_are_shuffled_cut_and_repeated(rig: Rig) -> None:
    orders = [f"o{n}" for n in range(40)]
    await rig.react(*map(confirmed, orders))
    reports, expected = [], {}
    for number, notification in enumerate(await rig.all()):
        key = notification.notification_id
        reports += [NotificationSending(notification_id=key, attempt=n) for n in (1, 2)]
        if number % 2:
            reports.append(NotificationSent(notification_id=key, attempt=2, message_id=f"<{key}@x>"))
        else:
            reports.append(NotificationFailed(notification_id=key, attempt=2, reason="no"))
        expected[key] = Stage.PROCESSED if number % 2 else Stage.FAILED
    messages = [message(report, report.notification_id) for report in reports * 2]
    random.Random(7).shuffle(messages)
    await asyncio.gather(*(rig.react(*messages[n::6]) for n in range(6)))
    assert {n.notification_id: n.report.stage for n in await rig.all()} == expected
    for notification in await rig.all():
        sent = notification.report.stage is Stage.PROCESSED
        assert notification.report.attempt == 2
        assert notification.report.message_id == (f"<{notification.notification_id}@x>" if sent else "")
        assert notification.report.failure == ("" if sent else "no")


async def test_a_report_of_something_unknown_is_refused_and_leaves_its_batch_undone(rig: Rig) -> None:
    await rig.react(confirmed("o1"))
    (known,) = await rig.all()
    reports = [message(NotificationSending(notification_id=k, attempt=1), k) for k in (known.notification_id, uuid7())]
    with pytest.raises(NotFound):
        await rig.react(*reports)
    assert await rig.all() == [known]
    await rig.react(reports[0])
    assert (await rig.all())[0].report.stage is Stage.IN_PROGRESS


async def test_lists_are_pages_newest_first(rig: Rig, config: NotificationConfig) -> None:
    for batch in range(5):
        await rig.react(*(confirmed(f"o{batch}-{n}", f"c{n % 2}") for n in range(5)))
    running = await start(build(config))
    await running.ready()
    client = RpcClient(running.address, NotificationServiceStub)
    await client.open()

    async def pages(**which: Any) -> list[str]:
        found, token = [], ""
        while True:
            request = ListNotificationsRequest(page_token=token, page_size=4, **which)
            page = await client.stub.ListNotifications(request, timeout=5)
            assert len(page.notifications) <= 4
            found += [n.notification_id for n in page.notifications]
            if not (token := page.next_page_token):
                return found

    everything = [n.notification_id for n in await rig.all()]
    assert await pages() == everything
    assert len(await pages(customer_id="c0")) == 15
    assert len(await pages(order_id="o3-1")) == 1
    assert len(await pages(customer_id="c1", status=1)) == 10
    assert await pages(status=3) == []
    one = await client.stub.GetNotification(GetNotificationRequest(notification_id=everything[0]), timeout=5)
    assert one.content.total == TOTAL

    first = await client.stub.ListNotifications(ListNotificationsRequest(page_size=4), timeout=5)
    bad = [
        (ListNotificationsRequest(page_size=-1, page_token="x", status=9, customer_id="\0"), 4),  # type: ignore[arg-type]
        (ListNotificationsRequest(page_token=first.next_page_token, customer_id="c0"), 1),
    ]
    for request, count in bad:
        with pytest.raises(InvalidArgument) as caught, translated("notification_svc"):
            await client.stub.ListNotifications(request, timeout=5)
        assert len(caught.value.violations) == count
    for key, error in (("", InvalidArgument), ("x", InvalidArgument), (uuid7(), NotFound)):
        with pytest.raises(error), translated("notification_svc"):
            await client.stub.GetNotification(GetNotificationRequest(notification_id=key), timeout=5)
    await client.close()
    await running.drain_and_stop()
