import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from polymart.order.v1.events_pb2 import OrderConfirmed, OrderRejected

from chassis.errors import Aborted, NotFound, Unavailable
from chassis.inbox.memory import MemoryInbox, MemoryTransaction
from chassis.inbox.postgres import PostgresInbox
from chassis.messaging.dead_letters import DEAD_LETTER_HEADERS, DeadLetters
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_topology, wire_size
from chassis.messaging.publisher import Publisher
from chassis.messaging.subscription import Subscription
from chassis.outbox.memory import MemoryOutbox
from chassis.outbox.relay import Relay
from chassis.postgres import Postgres, Transaction, migrate
from chassis.telemetry import Tracing
from tests.conftest import NatsServer, until
from tests.consumers import in_hand
from tests.integration.messaging.support import (
    CONSUMER,
    Recorder,
    confirmed,
    entries,
    make_again,
    running,
)


class Effects:
    """A handler whose effects are remembered when they are committed. `before` may refuse a message."""

    def __init__(self, before: Callable[[Envelope], None] = lambda _: None):
        self.handled: Counter[str] = Counter()
        self.batches: list[list[Envelope]] = []
        self._before = before

    async def __call__(self, messages: Sequence[Envelope], *, tx: MemoryTransaction) -> None:
        for message in messages:
            self._before(message)

        def happen() -> None:
            self.batches.append(list(messages))
            self.handled.update(message.id for message in messages)

        tx.after_commit(happen)


def subscription_of(
    nats: Nats, effects: Effects, metrics: Recorder | None = None, inbox: MemoryInbox | None = None
) -> Subscription[MemoryTransaction]:
    handlers = {OrderConfirmed: effects, OrderRejected: effects}
    return Subscription(nats, CONSUMER, handlers, inbox or MemoryInbox(), metrics or Recorder(), first_delay=0.01)


async def publish(nats: Nats, count: int) -> list[Envelope]:
    sent = [confirmed(f"o-{n}") for n in range(count)]
    await Publisher(nats).send(sent)
    return sent


async def settled(nats: Nats) -> bool:
    return await in_hand(nats, CONSUMER) == 0


async def test_a_batch_is_one_transaction_and_then_acknowledged(fresh_nats: Nats) -> None:
    sent = await publish(fresh_nats, 50)
    effects, metrics = Effects(), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: sum(effects.handled.values()) == 50)
        await until(lambda: settled(fresh_nats))
    assert effects.handled == Counter(message.id for message in sent)
    assert len(effects.batches) < 10
    assert metrics.outcomes == {"handled": 50}
    assert {message.payload.order_id for batch in effects.batches for message in batch} == {  # type: ignore[attr-defined]
        f"o-{n}" for n in range(50)
    }


async def test_a_message_that_comes_twice_has_its_effect_once(fresh_nats: Nats) -> None:
    (sent,) = await publish(fresh_nats, 1)
    (entry,) = entries([sent])
    for copy in range(3):
        headers = {**entry.headers, "Nats-Msg-Id": f"copy {copy}"}
        await fresh_nats.js.publish(entry.subject, entry.data, headers=headers)
    effects = Effects()
    async with running(subscription_of(fresh_nats, effects)):
        await until(lambda: effects.handled)
        await until(lambda: settled(fresh_nats))
    assert effects.handled == {sent.id: 1}


async def test_a_stream_that_is_made_again_with_the_same_messages_changes_nothing(fresh_nats: Nats) -> None:
    sent = await publish(fresh_nats, 20)
    effects, metrics = Effects(), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: sum(effects.handled.values()) == 20)
        await make_again(fresh_nats)
        await Publisher(fresh_nats).send(sent)
        await until(lambda: metrics.outcomes["duplicate"] >= 20)
    assert set(effects.handled.values()) == {1}


async def test_a_deleted_consumer_is_made_again(fresh_nats: Nats) -> None:
    effects = Effects()
    async with running(subscription_of(fresh_nats, effects)):
        await publish(fresh_nats, 1)
        await until(lambda: effects.handled)
        await fresh_nats.js.delete_consumer(CONSUMER.stream, CONSUMER.durable)
        (late,) = await publish(fresh_nats, 1)
        await until(lambda: effects.handled[late.id])
    assert set(effects.handled.values()) == {1}


async def test_a_poison_message_goes_to_the_dlq_while_the_others_pass(fresh_nats: Nats) -> None:
    sent = await publish(fresh_nats, 30)
    poison = sent[11]

    def refuse(message: Envelope) -> None:
        if message.id == poison.id:
            raise ValueError("no good: é\n")

    effects, metrics = Effects(refuse), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: metrics.dead)
        await until(lambda: settled(fresh_nats))
    assert effects.handled == Counter(message.id for message in sent if message is not poison)
    assert metrics.dead == [(CONSUMER.durable, "polymart.order.v1.OrderConfirmed")]
    (letter,) = await DeadLetters(fresh_nats).list()
    assert (letter.id, letter.type, letter.subject) == (poison.id, poison.type, poison.subject)
    assert (letter.consumer, letter.error, letter.deliveries) == (CONSUMER.durable, "ValueError: no good: é\n", 5)
    assert letter.payload() == poison.payload
    assert letter.headers == {k: v for k, v in poison.headers().items() if k != "Nats-Msg-Id"}


async def test_the_largest_message_with_the_longest_error_becomes_a_dead_letter_and_is_replayed(
    fresh_nats: Nats,
) -> None:
    client, publisher = fresh_nats.client, Publisher(fresh_nats)
    (entry,) = entries([confirmed("large")])
    room = client.max_payload - DEAD_LETTER_HEADERS - wire_size(entry.headers, b"")
    entry = replace(entry, data=OrderConfirmed(customer_id="x" * (room - 4)).SerializeToString())
    assert wire_size(entry.headers, entry.data) == client.max_payload - DEAD_LETTER_HEADERS
    too_large = replace(entry, data=entry.data + b"x")
    assert (await publisher.attempt([too_large])).refused
    assert (await publisher.attempt([entry])).acked
    broken = True

    def refuse(_: Envelope) -> None:
        if broken:
            raise ValueError("錯" * 3_000)

    effects, metrics, letters = Effects(refuse), Recorder(), DeadLetters(fresh_nats)
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: metrics.dead)
        (letter,) = await letters.list()
        assert letter.data == entry.data
        assert letter.error.startswith("ValueError: 錯錯錯")
        broken = False
        await letters.replay(letter.sequence)
        await until(lambda: effects.handled)
    assert effects.handled == {entry.id: 1}
    assert fresh_nats.client is client
    assert client.is_connected


async def test_a_dead_letter_that_is_too_large_closes_no_connection_and_stays_where_it_is(fresh_nats: Nats) -> None:
    (entry,) = entries([confirmed()])
    (ours,) = entries([confirmed()])
    room = fresh_nats.client.max_payload - wire_size(entry.headers, b"")
    await fresh_nats.js.publish(entry.subject, b"\xff" * room, headers=dict(entry.headers))
    effects, metrics = Effects(), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await Publisher(fresh_nats).attempt([ours])
        await until(lambda: effects.handled)
    assert await in_hand(fresh_nats, CONSUMER) == 1
    assert fresh_nats.connected


async def test_a_connection_that_the_broker_closed_for_good_is_made_again(fresh_nats: Nats) -> None:
    effects, metrics, outbox = Effects(), Recorder(), MemoryOutbox()
    relay = Relay(outbox, Publisher(fresh_nats), metrics, "test")
    async with running(subscription_of(fresh_nats, effects, metrics), relay):
        for number in (1, 2):
            client = fresh_nats.client
            # The client counts the body alone, the broker the headers as well.
            await client.publish("anything", b"x" * client.max_payload, headers={"a": "b"})
            await until(lambda client=client: client.is_closed)
            (entry,) = entries([confirmed(f"o-{number}")])
            outbox.entries[entry.id] = entry
            await until(lambda number=number: len(effects.handled) == number)
            assert fresh_nats.client is not client
    assert set(effects.handled.values()) == {1}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poisoned=st.sets(st.integers(0, 24), max_size=25))
async def test_whatever_is_poisoned_goes_to_the_dlq_and_the_rest_is_handled_once(
    fresh_nats: Nats, poisoned: set[int]
) -> None:
    sent = await publish(fresh_nats, 25)
    bad = {sent[position].id for position in poisoned}

    def refuse(message: Envelope) -> None:
        if message.id in bad:
            raise ValueError("poison")

    effects, metrics = Effects(refuse), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: len(metrics.dead) == len(bad) and len(effects.handled) == 25 - len(bad))
    assert effects.handled == Counter(message.id for message in sent if message.id not in bad)
    letters = DeadLetters(fresh_nats)
    found = await letters.list()
    assert sorted(letter.id for letter in found) == sorted(bad)
    for letter in found:
        await letters.drop(letter.sequence)


async def test_an_unreadable_message_goes_to_the_dlq_at_once(fresh_nats: Nats) -> None:
    (entry,) = entries([confirmed()])
    unknown = {**entry.headers, "ce-type": "polymart.order.v1.Nonsense", "Nats-Msg-Id": "1"}
    await fresh_nats.js.publish(entry.subject, entry.data, headers=unknown)
    await fresh_nats.js.publish(entry.subject, b"\xff\xff", headers={**entry.headers, "Nats-Msg-Id": "2"})
    await fresh_nats.js.publish(entry.subject, b"bare")
    (good,) = await publish(fresh_nats, 1)
    effects, metrics = Effects(), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: len(metrics.dead) == 3 and effects.handled[good.id])
        await until(lambda: settled(fresh_nats))
    assert Counter(kind for _, kind in metrics.dead) == {"unknown": 2, "polymart.order.v1.OrderConfirmed": 1}
    letters = await DeadLetters(fresh_nats).list()
    # Two of them claim the same ce-id: that is one failure of one message.
    assert [letter.deliveries for letter in letters] == [1] * len(letters)
    assert all(letter.payload() is None for letter in letters)


@pytest.mark.parametrize("outage", [Unavailable("away"), ConnectionRefusedError()])
async def test_an_outage_pauses_and_fails_nothing(fresh_nats: Nats, outage: Exception) -> None:
    sent = await publish(fresh_nats, 10)
    tries = 0

    def away(_: Envelope) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise outage

    effects, metrics = Effects(away), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: len(effects.handled) == 10)
    assert effects.handled == Counter(message.id for message in sent)
    assert metrics.outcomes == {"handled": 10}
    assert await DeadLetters(fresh_nats).list() == []


async def test_stopping_in_an_outage_gives_the_messages_back(fresh_nats: Nats) -> None:
    await publish(fresh_nats, 5)
    tried = asyncio.Event()

    def away(_: Envelope) -> None:
        tried.set()
        raise Unavailable("away")

    async with running(subscription_of(fresh_nats, Effects(away))):
        await tried.wait()
    effects = Effects()
    async with running(subscription_of(fresh_nats, effects)):
        await until(lambda: len(effects.handled) == 5, 5)


async def test_stopping_finishes_the_batch_in_hand(fresh_nats: Nats) -> None:
    await publish(fresh_nats, 5)
    began, told_to_stop = asyncio.Event(), asyncio.Event()

    class Slow(Effects):
        async def __call__(self, messages: Sequence[Envelope], *, tx: MemoryTransaction) -> None:
            began.set()
            await told_to_stop.wait()
            await super().__call__(messages, tx=tx)

    first, second, inbox, metrics = Slow(), Effects(), MemoryInbox(), Recorder()
    subscription = subscription_of(fresh_nats, first, inbox=inbox)
    async with running(subscription):
        await began.wait()
        await subscription.stop()
        told_to_stop.set()
    assert first.handled
    async with running(subscription_of(fresh_nats, second, metrics, inbox)):
        await until(lambda: len(first.handled | second.handled) == 5)
    # What was acknowledged doesn't come again.
    assert metrics.outcomes["duplicate"] == 0


async def test_a_conflict_is_tried_again_as_it_is(fresh_nats: Nats) -> None:
    tries = 0

    def lose(_: Envelope) -> None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise Aborted("changed meanwhile")

    await publish(fresh_nats, 10)
    effects, metrics = Effects(lose), Recorder()
    async with running(subscription_of(fresh_nats, effects, metrics)):
        await until(lambda: len(effects.handled) == 10)
    assert not metrics.dead
    assert set(effects.handled.values()) == {1}


async def test_a_broker_killed_meanwhile_changes_nothing(own_nats: NatsServer) -> None:
    nats = Nats(own_nats.url, "test")
    await nats.open()
    await ensure_topology(nats)
    effects = Effects()
    publisher = Publisher(nats)
    sent: list[str] = []

    async def nearly_all_handled() -> bool:
        return len(effects.handled) >= len(sent) - 10

    async with running(subscription_of(nats, effects)):
        for kill in (False, True, True):
            if kill:
                own_nats.kill()
                own_nats.start()
            some = entries([confirmed(f"o-{n}") for n in range(20)])

            async def published(some: list[object] = some) -> bool:  # type: ignore[assignment]
                return len((await publisher.attempt(some)).acked) == 20  # type: ignore[arg-type]

            await until(published)
            sent += [entry.id for entry in some]
            await until(nearly_all_handled)
        await until(lambda: len(effects.handled) == 60)
    assert effects.handled == Counter(sent)
    await nats.close()


async def test_a_lost_database_pauses_and_nothing_is_lost_or_repeated(fresh_nats: Nats, database: str) -> None:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    await db.execute("CREATE TABLE effects (id uuid)")
    terminated = 0

    async def handle(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        nonlocal terminated
        await tx.execute("INSERT INTO effects SELECT unnest($1::uuid[])", [m.id for m in messages])
        if terminated < 3:
            terminated += 1
            admin = await asyncpg.connect(database)
            await admin.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
            await admin.close()

    sent = await publish(fresh_nats, 30)
    metrics = Recorder()
    handlers = {OrderConfirmed: handle, OrderRejected: handle}
    subscription = Subscription(fresh_nats, CONSUMER, handlers, PostgresInbox(db), metrics)
    async with running(subscription):
        await until(lambda: metrics.outcomes["handled"] == 30)
    rows = await db.fetch("SELECT id FROM effects")
    assert sorted(str(row["id"]) for row in rows) == sorted(message.id for message in sent)
    assert not metrics.dead
    await db.close()


async def test_a_message_whose_id_is_in_upper_case_has_its_effect_once(fresh_nats: Nats, database: str) -> None:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    (entry,) = entries([confirmed()])
    effects, metrics = Effects(), Recorder()

    async def handle(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        tx.after_commit(lambda: effects.handled.update(message.id for message in messages))

    handlers = {OrderConfirmed: handle, OrderRejected: handle}
    async with running(Subscription(fresh_nats, CONSUMER, handlers, PostgresInbox(db), metrics)):
        for id in (entry.id.upper(), entry.id):
            headers = {**entry.headers, "ce-id": id, "Nats-Msg-Id": id}
            await fresh_nats.js.publish(entry.subject, entry.data, headers=headers)
            await until(lambda: metrics.outcomes)
            await until(lambda: settled(fresh_nats))
    assert effects.handled == {entry.id: 1}
    await db.close()


async def test_batches_that_deadlock_are_tried_again(fresh_nats: Nats, database: str) -> None:
    await migrate(database, "chassis")
    db = Postgres(database)
    await db.open()
    await db.execute("CREATE TABLE stock (sku text PRIMARY KEY, sold int); INSERT INTO stock VALUES ('a', 0), ('b', 0)")
    orders = iter(["ab", "ba"])
    both_began = asyncio.Barrier(2)

    async def sell(messages: Sequence[Envelope], *, tx: Transaction) -> None:
        """The first two take a row each, and then want the other's: one of them has to give way."""
        order = next(orders, None)
        await tx.execute("UPDATE stock SET sold = sold + 1 WHERE sku = $1", (order or "ab")[0])
        if order:
            await both_began.wait()
        await tx.execute("UPDATE stock SET sold = sold + 1 WHERE sku = $1", (order or "ab")[1])

    metrics = Recorder()
    handlers = {OrderConfirmed: sell, OrderRejected: sell}
    await publish(fresh_nats, 6)
    both = [Subscription(fresh_nats, CONSUMER, handlers, PostgresInbox(db), metrics, batch=1) for _ in range(2)]
    async with running(*both):
        await until(lambda: metrics.outcomes["handled"] == 6)
    sold = {row["sku"]: row["sold"] for row in await db.fetch("SELECT * FROM stock")}
    assert sold == {"a": 6, "b": 6}
    assert metrics.outcomes["retried"] >= 1
    assert not metrics.dead
    await db.close()


async def test_a_replayed_message_is_handled_by_who_failed_and_by_nobody_else(fresh_nats: Nats) -> None:
    broken = True

    def fail(_: Envelope) -> None:
        if broken:
            raise ValueError("not yet")

    (sent,) = await publish(fresh_nats, 1)
    letters, metrics = DeadLetters(fresh_nats), Recorder()
    inbox = MemoryInbox()
    failing = Effects(fail)
    async with running(subscription_of(fresh_nats, failing, metrics, inbox)):
        await until(lambda: len(metrics.dead) == 1)
        (letter,) = await letters.list()
        assert letter.replays == 0
        await letters.replay(letter.sequence)
        await until(lambda: len(metrics.dead) == 2)
        (letter,) = await letters.list()
        assert letter.replays == 1
        broken = False
        await letters.replay(letter.sequence)
        await until(lambda: failing.handled)
    with pytest.raises(NotFound, match="no dead letter"):
        await letters.drop(letter.sequence)
    with pytest.raises(NotFound, match="no dead letter"):
        await letters.replay(letter.sequence)
    assert failing.handled == {sent.id: 1}
    assert await letters.list() == []
    async with inbox.begin(CONSUMER.durable, [sent.id]) as (_, fresh):
        assert not fresh


async def test_what_a_handler_emits_is_in_the_trace_of_its_cause(fresh_nats: Nats) -> None:
    exporter = InMemorySpanExporter()
    Tracing("test_svc", SimpleSpanProcessor(exporter)).use()
    trace_ids = [f"{n:032x}" for n in (7, 8)]
    sent = [confirmed(f"o-{n}").within(f"00-{trace_id}-00000000000000ff-01") for n, trace_id in enumerate(trace_ids)]
    await Publisher(fresh_nats).send([*sent, confirmed("o-2")])
    effects = Effects()
    async with running(subscription_of(fresh_nats, effects)):
        await until(lambda: len(effects.handled) == 3)
    Tracing("test_svc").use()
    emitted = {
        cause.id: Envelope.new(OrderRejected(), aggregate_id="o", source="test_svc", cause=cause)
        for batch in effects.batches
        for cause in batch
    }
    spans = {s.attributes["messaging.message.id"]: s for s in exporter.get_finished_spans() if s.parent is not None}  # type: ignore[index]
    for message, trace_id in zip(sent, trace_ids, strict=True):
        span = spans[message.id]
        assert (f"{span.context.trace_id:032x}", span.parent.span_id) == (trace_id, 0xFF)  # type: ignore[union-attr]
        assert emitted[message.id].traceparent == f"00-{trace_id}-{span.context.span_id:016x}-01"


async def test_a_consumer_without_a_handler_for_one_of_its_types_is_refused(fresh_nats: Nats) -> None:
    with pytest.raises(ValueError, match="OrderRejected"):
        Subscription(fresh_nats, CONSUMER, {OrderConfirmed: Effects()}, MemoryInbox(), Recorder())


async def test_all_dead_letters_are_listed_however_many(fresh_nats: Nats) -> None:
    letters = DeadLetters(fresh_nats)
    await asyncio.gather(*(fresh_nats.js.publish(f"dlq.x.{n}", b"") for n in range(1_200)))
    assert len(await letters.list()) == 1_200
    assert [letter.sequence for letter in await letters.list(limit=2)] == [1, 2]
