"""Delivering against doubles that crash between any two steps."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationMuted, NotificationSending, NotificationSent
from polymart.notification.v1.events_pb2 import NotificationCreated, NotificationRetried
from polymart.notification.v1.notification_pb2 import (
    NOTIFICATION_KIND_ORDER_CONFIRMED,
    Notification,
    NotificationContent,
)

from chassis.clock import ManualClock
from chassis.errors import Unavailable
from chassis.messaging.envelope import Envelope
from email_svc.application.ports import Letter, Overtaken, Recipient, Refusal, Unsendable
from email_svc.application.postman import Postman
from email_svc.domain.delivery import Delivery, State, Timing
from email_svc.domain.reasons import without

TIMING = Timing(delays=(timedelta(seconds=1), timedelta(seconds=4)))
NOTIFICATION = Notification(notification_id="0190a000-0000-7000-8000-000000000001", customer_id="c1")


Fault = tuple[type[BaseException], bool]


class Crash(BaseException):
    """The process dies."""


class Outage(Unavailable):
    def __init__(self) -> None:
        super().__init__("gone")


class World:
    """The log, the mail server, customers and the broker, which outlive a process. `faults` are used up by the calls
    one by one: an exception comes before the call has its effect or, with `after`, after it."""

    def __init__(self, *faults: Fault | None):
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.faults = list(faults)
        self.log: dict[str, tuple[Delivery, int]] = {}
        self.customer: Recipient | None = Recipient("Ada Lovelace", "ada@example.org")
        self.merchant: Recipient | None = None
        self.codes: dict[bytes, str] = {}
        self.refusals: list[Refusal | None] = []
        self.mails: list[str] = []
        self.unanswered = 0
        self.events: dict[str, Envelope] = {}
        self.cause = Envelope.new(
            NotificationCreated(notification=NOTIFICATION), aggregate_id=NOTIFICATION.notification_id, source="test"
        )

    def process(self) -> Postman:
        return Postman(
            deliveries=self, customers=self, letters=self, mailer=Server(self), announcements=Broker(self),
            clock=self.clock, merchant=self.merchant, timing=TIMING,
        )  # fmt: skip

    def fault(self) -> Fault | None:
        return self.faults.pop(0) if self.faults else None

    async def get(self, notification_id: str) -> tuple[Delivery, int] | None:
        await asyncio.sleep(0)  # as over a wire, others may come between
        if fault := self.fault():
            raise fault[0]
        return self.log.get(notification_id)

    async def put(self, notification_id: str, delivery: Delivery, revision: int) -> int:
        fault = self.fault()
        if fault and not fault[1]:
            raise fault[0]
        if self.log.get(notification_id, (None, 0))[1] != revision:
            raise Overtaken
        self.log[notification_id] = delivery, revision + 1
        if fault:
            raise fault[0]
        return revision + 1

    async def find(self, customer_id: str) -> Recipient | None:
        if fault := self.fault():
            raise fault[0]
        return self.customer

    async def code(self, customer_id: str, personal_data: bytes) -> str | None:
        return self.codes.get(personal_data)

    def new_message_id(self, notification_id: str) -> str:
        return f"<{notification_id}@{len(self.events)}>"

    def write(self, notification: Notification, to: Recipient, message_id: str, code: str = "") -> Letter:
        if to.email == "bad":
            raise Unsendable("bad address")
        return Letter("shop@polymart.example", to.email, (message_id + code).encode())

    def of_type(self, event: type) -> list[Envelope]:
        return [e for e in self.events.values() if isinstance(e.payload, event)]


class Server:
    def __init__(self, world: World):
        self._world = world

    async def send(self, letter: Letter) -> Refusal | None:
        fault = self._world.fault()
        if fault and not fault[1]:
            raise fault[0]
        if self._world.refusals and (refusal := self._world.refusals.pop(0)):
            return refusal
        self._world.mails.append(letter.data.decode())
        if fault:
            self._world.unanswered += fault[0] is Outage
            raise fault[0]
        return None


class Broker:
    def __init__(self, world: World):
        self._world = world

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        fault = self._world.fault()
        if fault and not fault[1]:
            raise fault[0]
        for envelope in envelopes:
            known = self._world.events.setdefault(envelope.id, envelope)
            assert known.payload == envelope.payload, "one id, one message"
        if fault:
            raise fault[0]


async def run(world: World, notification: Notification = NOTIFICATION) -> None:
    """Deliver again and again, as the broker does, in a new process after each crash."""
    process = world.process()
    for _ in range(100):
        try:
            later = await process.deliver(notification, world.cause)
        except Unavailable:
            continue
        except Crash:
            process = world.process()
            continue
        if later is None:
            return
        world.clock.advance(later)
    pytest.fail("never ends")


FAULTS = st.none() | st.tuples(st.sampled_from([Crash, Outage]), st.booleans())
TEMPORARY, PERMANENT = Refusal("451 later", temporary=True), Refusal("550 nobody", temporary=False)


@given(st.lists(FAULTS, max_size=12), st.lists(st.sampled_from([None, TEMPORARY, PERMANENT]), max_size=4))
async def test_every_delivery_ends_once_whatever_breaks(
    faults: list[Fault | None], refusals: list[Refusal | None]
) -> None:
    world = World(*faults)
    world.refusals = refusals
    await run(world)
    delivery, _ = world.log[NOTIFICATION.notification_id]
    ends = world.of_type(NotificationSent) + world.of_type(NotificationFailed)
    assert len(ends) == 1
    assert ends[0].payload.attempt == delivery.attempt
    assert isinstance(ends[0].payload, NotificationSent if delivery.state is State.DELIVERED else NotificationFailed)
    assert len({*world.mails, delivery.message_id}) == 1, "one Message-ID"
    if delivery.state is State.DELIVERED:
        crashes = sum(fault is not None and fault[0] is Crash for fault in faults)
        assert 1 <= len(world.mails) <= 1 + crashes + world.unanswered
    attempts = Counter(e.payload.attempt for e in world.of_type(NotificationSending))
    assert set(attempts) <= set(range(1, delivery.attempt + 1))
    assert attempts[delivery.attempt] == 1
    mails, events = list(world.mails), dict(world.events)
    world.faults.clear()
    await run(world)
    assert (world.mails, world.events) == (mails, events), "a redelivery repeats what was said and sends nothing"


async def test_a_temporary_refusal_is_tried_again_after_growing_delays_then_given_up() -> None:
    world = World()
    world.refusals = [TEMPORARY] * 3
    process = world.process()
    waits = []
    while (later := await process.deliver(NOTIFICATION, world.cause)) is not None:
        waits.append(later.total_seconds())
        assert await world.process().deliver(NOTIFICATION, world.cause) == later, "nobody tries before"
        world.clock.advance(later)
    assert waits == [1, 4]
    (failed,) = world.of_type(NotificationFailed)
    assert failed.payload.reason == "given up after 3 attempts: 451 later"
    assert [e.payload.attempt for e in world.of_type(NotificationSending)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("customer", "reason"),
    [
        (None, "the customer is unknown"),
        (Recipient("Ada", ""), "the customer has no e-mail address"),
        (Recipient("Ada", "bad"), "bad address"),
    ],
)
async def test_who_cannot_be_written_to_fails_at_once(customer: Recipient | None, reason: str) -> None:
    world = World()
    world.customer = customer
    assert await world.process().deliver(NOTIFICATION, world.cause) is None
    assert [e.payload.reason for e in world.of_type(NotificationFailed)] == [reason]
    assert not world.mails


async def test_an_outage_is_nobodys_attempt_and_a_living_claim_is_left_alone() -> None:
    world = World(None, None, None, (Outage, False))
    process = world.process()
    with pytest.raises(Unavailable):
        await process.deliver(NOTIFICATION, world.cause)
    assert await world.process().deliver(NOTIFICATION, world.cause) == TIMING.claim
    assert await process.deliver(NOTIFICATION, world.cause) is None
    assert world.log[NOTIFICATION.notification_id][0].attempt == 1


async def test_a_log_that_is_away_after_the_servers_answer_sends_nothing_again() -> None:
    for answer in (None, TEMPORARY, PERMANENT):
        for written in (False, True):
            world = World(*[None] * 5, (Outage, written), None, (Outage, False))
            world.refusals = [answer]
            await run(world)
            assert len(world.mails) == (0 if answer is PERMANENT else 1)
            delivery, _ = world.log[NOTIFICATION.notification_id]
            assert delivery.refusals == (1 if answer is TEMPORARY else 0)


async def test_the_claim_of_a_dead_process_is_taken_over() -> None:
    world = World(None, None, None, None, (Crash, True))
    with pytest.raises(Crash):
        await world.process().deliver(NOTIFICATION, world.cause)
    assert len(world.mails) == 1
    world.clock.advance(TIMING.claim)
    assert await world.process().deliver(NOTIFICATION, world.cause) is None
    assert len(world.mails) == 2
    assert len(set(world.mails)) == 1
    (sent,) = world.of_type(NotificationSent)
    assert sent.payload.attempt == 2


@given(st.lists(FAULTS, max_size=12), st.lists(st.sampled_from([None, TEMPORARY, PERMANENT]), max_size=4))
async def test_a_retry_of_a_failed_delivery_is_one_more_attempt_with_the_same_message_id(
    faults: list[Fault | None], refusals: list[Refusal | None]
) -> None:
    world = World()
    world.refusals = [PERMANENT]
    await run(world)
    failed, _ = world.log[NOTIFICATION.notification_id]
    assert (failed.state, failed.attempt, world.mails) == (State.FAILED, 1, [])
    world.faults, world.refusals = list(faults), refusals
    crashes = sum(fault is not None and fault[0] is Crash for fault in faults)
    retried = Notification()
    retried.CopyFrom(NOTIFICATION)
    retried.attempt = 2
    world.cause = Envelope.new(
        NotificationRetried(notification=retried), aggregate_id=retried.notification_id, source="test"
    )
    await run(world, retried)
    delivery, _ = world.log[NOTIFICATION.notification_id]
    assert delivery.attempt >= 2
    assert delivery.message_id == failed.message_id
    assert set(world.mails) <= {failed.message_id}
    assert len(world.mails) <= 1 + crashes + world.unanswered
    mails = list(world.mails)
    world.faults.clear()
    await run(world, retried)
    await run(world)
    assert world.mails == mails, "neither message sends anything when it comes again"


async def test_a_retry_whose_log_is_lost_goes_on_counting() -> None:
    world = World()
    retried = Notification(
        notification_id=NOTIFICATION.notification_id, customer_id="c1", attempt=7, message_id="<7@x>"
    )
    await run(world, retried)
    delivery, _ = world.log[NOTIFICATION.notification_id]
    assert (delivery.attempt, delivery.message_id, world.mails) == (7, "<7@x>", ["<7@x>"])


async def test_what_is_muted_ends_without_an_e_mail_and_so_does_what_nobody_is_to_get() -> None:
    world = World()
    world.customer = Recipient("Ada", "ada@example.org", frozenset([NOTIFICATION_KIND_ORDER_CONFIRMED]))
    confirmed = Notification(
        notification_id=NOTIFICATION.notification_id, customer_id="c1", kind=NOTIFICATION_KIND_ORDER_CONFIRMED
    )
    await run(world, confirmed)
    await run(world, confirmed)
    assert len(world.of_type(NotificationMuted)) == 1
    assert not world.mails
    for merchant, mails in ((None, 0), (Recipient("", "shop@example.org"), 1)):
        world = World()
        world.merchant = merchant
        await run(world, Notification(notification_id=NOTIFICATION.notification_id))
        assert (len(world.of_type(NotificationMuted)), len(world.mails)) == (1 - mails, mails)


async def test_a_code_is_opened_for_its_letter_unless_it_is_too_late_or_nobody_can() -> None:
    for seconds, codes, mails in ((60, {b"sealed": "code"}, 1), (0, {b"sealed": "code"}, 0), (60, {}, 0)):
        world = World()
        world.codes = codes
        content = NotificationContent(personal_data=b"sealed")
        content.expire_time.FromDatetime(world.clock.now() + timedelta(seconds=seconds))
        secret = Notification(notification_id=NOTIFICATION.notification_id, customer_id="c1", content=content)
        await run(world, secret)
        assert len(world.mails) == mails
        assert all(mail.endswith("code") for mail in world.mails)


async def test_two_messages_about_one_delivery_in_one_process_send_it_once() -> None:
    world = World()
    process = world.process()
    waits = await asyncio.gather(*(process.deliver(NOTIFICATION, world.cause) for _ in range(5)))
    assert waits.count(None) == 1
    assert len(world.mails) == 1


async def test_what_a_server_says_is_kept_without_the_customer() -> None:
    world = World()
    said = "550 5.1.1 <ADA@example.org>: ada (Ada Lovelace) is no user here, ask root@example.net"
    world.refusals = [Refusal(said, temporary=False)]
    await run(world)
    (failed,) = world.of_type(NotificationFailed)
    assert failed.payload.reason == "550 5.1.1 <…>: … (…) is no user here, ask …"


@given(st.text(max_size=20), st.text(max_size=20), st.emails())
def test_no_address_and_no_secret_word_is_left_of_a_reason(before: str, after: str, email: str) -> None:
    kept = without(f"{before} <{email}> {after}", email.partition("@")[0])
    assert f"<{email}>" not in kept
