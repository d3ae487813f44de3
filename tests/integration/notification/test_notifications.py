"""notification_svc on PostgreSQL: its reactions in transactions, and its RPCs."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from polymart.customer.v1.events_pb2 import CustomerErased, CustomerRegistered
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationSending, NotificationSent
from polymart.inventory.v1.events_pb2 import StockRanLow
from polymart.notification.v1.events_pb2 import NotificationCreated, NotificationRetried
from polymart.notification.v1.notification_pb2 import (
    NOTIFICATION_KIND_LOW_STOCK,
    NOTIFICATION_STATUS_NEW,
)
from polymart.notification.v1.notification_pb2 import Notification as NotificationMessage
from polymart.notification.v1.notification_service_pb2 import (
    GetNotificationRequest,
    ListNotificationsRequest,
    MarkReadRequest,
    RetryNotificationRequest,
    WatchNotificationsRequest,
)
from polymart.notification.v1.notification_service_pb2_grpc import NotificationServiceStub
from polymart.order.v1.events_pb2 import OrderCancelled, OrderConfirmed, OrderRefunded, OrderRejected, OrderShipped
from polymart.order.v1.order_pb2 import OrderFailure

from chassis.clock import SystemClock
from chassis.config import load
from chassis.errors import FailedPrecondition, InvalidArgument, NotFound
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
from notification_svc.bootstrap import CREATED, build, migrate
from notification_svc.config import NotificationConfig
from notification_svc.domain.notification import Content, Notification, Report, Stage
from notification_svc.entrypoints.messages import handlers
from tests.conftest import Engine, until

WATCHING = ("notification watch", f"hints {CREATED}")
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
    yield Rig(db, PostgresNotifications(db, PostgresOutbox(db), lambda _: None))
    await db.close()


@asynccontextmanager
async def serving(config: NotificationConfig) -> AsyncIterator[RpcClient[Any]]:
    """The service, without the relay and the subscriptions: what `rig` does is all that happens."""
    service = build(config)
    workers = [worker for worker in service.workers if worker.name in WATCHING]
    assert len(workers) == len(WATCHING)
    running = await start(replace(service, workers=workers))
    await running.ready()
    client = RpcClient(running.address, NotificationServiceStub)
    await client.open()
    yield client
    await running.drain_and_stop()
    await client.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_batch_makes_one_notification_of_each_fact_and_announces_it_once(rig: Rig) -> None:
    first, again = confirmed("o1"), confirmed("o1")
    welcome = message(CustomerRegistered(customer_id="ada", has_email=True), "ada")
    cancelled = message(OrderCancelled(order_id="o1", customer_id="ada", total=TOTAL), "o1")
    shipped = message(OrderShipped(order_id="o1", shipment_id="s1", customer_id="ada"), "o1")
    refund = message(
        OrderRefunded(order_id="o1", operation_id="r1", customer_id="ada", amount=TOTAL, refunded=TOTAL), "o1"
    )
    guest = confirmed("o2", customer_id="")
    await rig.react(first, again, welcome, guest, cancelled, shipped, refund, shipped)
    await rig.react(first, again, refund)
    await rig.react(confirmed("o1"), welcome)
    stored = {n.notification_id: n for n in await rig.all()}
    announced = await rig.outbox()
    assert len(stored) == len(announced) == 5
    for event in announced:
        assert isinstance(event.payload, NotificationCreated)
        assert event.id == derived_id(event.aggregate_id, "created")
        assert event.aggregate_id in stored
    causes = first, welcome, cancelled, shipped, refund
    assert {e.causation_id for e in announced} == {cause.id for cause in causes}
    assert {e.correlation_id for e in announced} == {cause.correlation_id for cause in causes}


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
        begun = [m for m in messages if m.aggregate_id == notification.notification_id]
        assert notification.report.start_time in {m.time for m in begun if isinstance(m.payload, NotificationSending)}
        assert notification.report.end_time in {m.time for m in begun if not isinstance(m.payload, NotificationSending)}
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


async def test_lists_are_pages_newest_first(rig: Rig, config: NotificationConfig, stack: AsyncExitStack) -> None:
    for batch in range(5):
        await rig.react(*(confirmed(f"o{batch}-{n}", f"c{n % 2}") for n in range(5)))
    client = await stack.enter_async_context(serving(config))

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
    assert await pages(kind=1) == []
    assert await pages(kind=2, unread=True) == everything
    one = await client.stub.GetNotification(GetNotificationRequest(notification_id=everything[0]), timeout=5)
    assert one.content.total == TOTAL

    first = await client.stub.ListNotifications(ListNotificationsRequest(page_size=4), timeout=5)
    bad = [
        (ListNotificationsRequest(page_size=-1, page_token="x", status=99, kind=99, customer_id="\0"), 5),  # type: ignore[arg-type]
        (ListNotificationsRequest(page_token=first.next_page_token, customer_id="c0"), 1),
    ]
    for request, count in bad:
        with pytest.raises(InvalidArgument) as caught, translated("notification_svc"):
            await client.stub.ListNotifications(request, timeout=5)
        assert len(caught.value.violations) == count
    for key, error in (("", InvalidArgument), ("x", InvalidArgument), (uuid7(), NotFound)):
        with pytest.raises(error), translated("notification_svc"):
            await client.stub.GetNotification(GetNotificationRequest(notification_id=key), timeout=5)


async def test_a_customer_has_what_they_read_marked_and_nobody_elses(
    rig: Rig, config: NotificationConfig, stack: AsyncExitStack
) -> None:
    await rig.react(*(confirmed(f"o{n}", "ada" if n < 3 else "bob") for n in range(4)))
    stored = {n.fact.subject: n.notification_id for n in await rig.all()}
    client = await stack.enter_async_context(serving(config))

    async def mark(customer_id: str, *orders: str) -> list[NotificationMessage]:
        ids = [stored.get(order, order) for order in orders]
        with translated("notification_svc"):
            answer = await client.stub.MarkRead(
                MarkReadRequest(customer_id=customer_id, notification_ids=ids), timeout=5
            )
        return list(answer.notifications)

    async def unread(customer_id: str) -> set[str]:
        request = ListNotificationsRequest(customer_id=customer_id, unread=True)
        return {n.content.order_id for n in (await client.stub.ListNotifications(request, timeout=5)).notifications}

    for wrong, error in ((["o0", "o3"], NotFound), (["o0", uuid7()], NotFound), (["x"], InvalidArgument)):
        with pytest.raises(error):
            await mark("ada", *wrong)
    with pytest.raises(InvalidArgument):
        await mark("ada")
    assert await unread("ada") == {"o0", "o1", "o2"}, "all or none"
    first = await mark("ada", "o1", "o0")
    assert [n.content.order_id for n in first] == ["o1", "o0"]
    assert await unread("ada") == {"o2"}
    again = await mark("ada", "o0", "o2", "o0")
    assert again[0] == again[2] == first[1], "what was read keeps its time"
    assert (await unread("ada"), await unread("bob")) == (set(), {"o3"})


async def test_an_operator_has_a_failed_one_tried_again(
    rig: Rig, config: NotificationConfig, stack: AsyncExitStack
) -> None:
    await rig.react(confirmed("o1"))
    (stored,) = await rig.all()
    key = stored.notification_id
    client = await stack.enter_async_context(serving(config))

    async def retry(key: str) -> NotificationMessage:
        with translated("notification_svc"):
            answer = await client.stub.RetryNotification(RetryNotificationRequest(notification_id=key), timeout=5)
        assert isinstance(answer, NotificationMessage)
        return answer

    with pytest.raises(FailedPrecondition) as caught:
        await retry(key)
    assert caught.value.reason == "NOTIFICATION_NOT_FAILED"
    with pytest.raises(NotFound):
        await retry(uuid7())
    failed = message(NotificationFailed(notification_id=key, attempt=6, reason="full"), key)
    await rig.react(failed)
    outcomes = await asyncio.gather(*(retry(key) for _ in range(4)), return_exceptions=True)
    (retried,) = (outcome for outcome in outcomes if isinstance(outcome, NotificationMessage))
    assert (retried.status, retried.attempt, retried.failure) == (NOTIFICATION_STATUS_NEW, 7, "")
    await rig.react(message(NotificationFailed(notification_id=key, attempt=6, reason="late"), key))
    (stored,) = await rig.all()
    assert stored.report == Report(7), "what is said of an attempt before doesn't count any more"

    (event,) = [e.payload for e in await rig.outbox() if isinstance(e.payload, NotificationRetried)]
    assert (event.notification.notification_id, event.notification.attempt) == (key, 7)


async def test_of_an_erased_customer_is_left_that_they_were_told_something_and_nothing_comes_after(rig: Rig) -> None:
    failure = OrderFailure(message="sold out")
    await rig.react(confirmed("o1"), confirmed("o2", "bob"))
    await rig.react(message(OrderRejected(order_id="o3", customer_id="ada", total=TOTAL, failure=failure), "o3"))
    erased = message(CustomerErased(customer_id="ada", version=2), "ada")
    late = confirmed("o4")
    await asyncio.gather(rig.react(erased), rig.react(late), rig.react(confirmed("o5", "bob")))
    await rig.react(erased, late, confirmed("o6"), confirmed("o1"))
    by_subject = {n.fact.subject: n for n in await rig.all()}
    assert by_subject.keys() - {"o4"} == {"o1", "o2", "o3", "o5"}
    for notification in by_subject.values():
        assert (notification.fact.content == Content()) == (notification.fact.customer_id == "ada")
    for key in (by_subject[order].notification_id for order in ("o1", "o3")):
        await rig.react(
            message(NotificationFailed(notification_id=key, attempt=1, reason="the customer is unknown"), key)
        )
    assert {n.fact.content for n in await rig.all() if n.fact.customer_id == "ada"} == {Content()}


async def test_the_merchant_is_told_of_each_fall_below_once(rig: Rig) -> None:
    low = StockRanLow(sku="MUG", available=2, low_stock=5, version=3)
    await rig.react(message(low, "MUG"))
    await rig.react(message(low, "MUG"), message(StockRanLow(sku="MUG", low_stock=5, version=5), "MUG"))
    stored = await rig.all()
    assert [n.fact.subject for n in stored] == ["MUG/5", "MUG/3"]
    assert [e.payload.notification.kind for e in await rig.outbox()] == [NOTIFICATION_KIND_LOW_STOCK] * 2  # type: ignore[attr-defined]


async def test_numbers_grow_in_the_order_of_commits(rig: Rig) -> None:
    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 120:
            seen.extend(n.number for n in await rig.notifications.after("ada", seen[-1] if seen else 0, 7))

    following = asyncio.create_task(follow())
    await asyncio.gather(*(rig.react(*(confirmed(f"o{batch}-{n}") for n in range(6))) for batch in range(20)))
    await asyncio.wait_for(following, 20)
    stored = sorted(n.number for n in await rig.all())
    assert seen == stored, "who has seen a number has seen all before it"


async def test_watchers_get_what_is_new_once_each_and_go_on_where_they_were(
    rig: Rig, config: NotificationConfig, stack: AsyncExitStack
) -> None:
    await rig.react(confirmed("old"), confirmed("other", "bob"))
    client = await stack.enter_async_context(serving(config))

    async def watch(**where: Any) -> Any:
        call = client.stub.WatchNotifications(WatchNotificationsRequest(customer_id="ada", **where))
        await call.initial_metadata()
        return call

    async def take(call: Any, count: int) -> list[str]:
        async with asyncio.timeout(15):
            return [(await call.read()).content.order_id for _ in range(count)]

    watchers = [await watch() for _ in range(20)]
    # Not through this replica: what it is told comes from NATS, or is found by its poll.
    await rig.react(confirmed("n1"), confirmed("n2", "bob"))
    await rig.react(confirmed("n3"))
    assert await asyncio.gather(*(take(call, 2) for call in watchers)) == [["n1", "n3"]] * 20
    everything = await watch(after_number=0)
    assert await take(everything, 3) == ["old", "n1", "n3"]
    request = ListNotificationsRequest(customer_id="ada")
    newest = (await client.stub.ListNotifications(request, timeout=5)).notifications[0]
    resumed = await watch(after_number=newest.number - 1)
    assert await take(resumed, 1) == ["n3"]
    await rig.react(*(confirmed(f"m{n}") for n in range(250)))
    assert await take(resumed, 250) == await take(everything, 250)
    with pytest.raises(InvalidArgument), translated("notification_svc"):
        async for _ in client.stub.WatchNotifications(WatchNotificationsRequest(after_number=-1)):
            pass
    for call in (*watchers, everything, resumed):
        call.cancel()


async def test_a_watch_that_a_stopping_replica_ends_goes_on_at_another(rig: Rig, config: NotificationConfig) -> None:
    seen: list[NotificationMessage] = []

    async def follow(client: RpcClient[Any]) -> grpc.StatusCode:
        after = seen[-1].number if seen else 0
        call = client.stub.WatchNotifications(WatchNotificationsRequest(customer_id="ada", after_number=after))
        try:
            async for notification in call:
                seen.append(notification)
        except grpc.aio.AioRpcError as error:
            return error.code()
        raise AssertionError("a watch has no end of its own")

    for replica in range(3):
        await rig.react(*(confirmed(f"o{replica}-{n}") for n in range(5)))
        async with serving(config) as client:
            following = asyncio.create_task(follow(client))
            await rig.react(*(confirmed(f"p{replica}-{n}") for n in range(5)))
            await until(lambda replica=replica: len(seen) == 10 * (replica + 1))  # type: ignore[misc]
        assert await asyncio.wait_for(following, 10) is grpc.StatusCode.UNAVAILABLE
    assert [n.notification_id for n in seen] == [
        n.notification_id for n in sorted(await rig.all(), key=lambda stored: stored.number)
    ]
