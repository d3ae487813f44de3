"""A stream read again from some time on, beside its durable consumers."""

from datetime import UTC, datetime, timedelta

import pytest
from polymart.order.v1.events_pb2 import OrderConfirmed, OrderPlaced

from chassis.errors import Unavailable
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats
from chassis.messaging.publisher import Publisher
from chassis.messaging.replay import replay
from chassis.messaging.topology import TOPOLOGY, Consumer
from tests.conftest import until
from tests.consumers import in_hand

CONFIRMED = Consumer("replay_test", "EVT_ORDER", ("polymart.order.v1.OrderConfirmed",))
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


async def publish(nats: Nats, first: int, count: int) -> None:
    """Confirmations, each with a message of another type beside it."""
    ids = [f"{number}" for number in range(first, first + count)]
    messages = [(kind(order_id=id), id) for id in ids for kind in (OrderConfirmed, OrderPlaced)]
    await Publisher(nats).send([Envelope.new(m, aggregate_id=id, source="test") for m, id in messages])


async def read(nats: Nats, since: datetime = LONG_AGO, consumer: Consumer = CONFIRMED) -> list[str]:
    return [e.payload.order_id async for batch in replay(nats, consumer, since) for e in batch]  # type: ignore[attr-defined]


async def test_all_of_its_types_is_read_once_each_time_and_durable_consumers_stay_where_they_are(
    fresh_nats: Nats,
) -> None:
    await publish(fresh_nats, 0, 1_200)
    durables = [c for c in TOPOLOGY.consumers if c.stream == "EVT_ORDER"]
    waiting = await in_hand(fresh_nats, *durables)
    for _ in range(2):
        assert sorted(await read(fresh_nats)) == sorted(f"{n}" for n in range(1_200))
    assert await in_hand(fresh_nats, *durables) == waiting > 0

    async def nothing_left() -> bool:
        info = await fresh_nats.js.consumers_info("EVT_ORDER")
        return len(info) == len(durables)

    await until(nothing_left)


async def test_what_was_stored_before_is_left_out_and_so_is_what_cannot_be_read(fresh_nats: Nats) -> None:
    assert await read(fresh_nats) == []
    await publish(fresh_nats, 0, 3)
    last = await fresh_nats.js.get_last_msg("EVT_ORDER", "evt.order.order.OrderConfirmed.*")
    stored = datetime.fromisoformat(str(last.time)) if isinstance(last.time, str) else last.time
    assert stored is not None
    after = stored + timedelta(milliseconds=1)
    await fresh_nats.js.publish("evt.order.order.OrderConfirmed.x", b"what?")
    await publish(fresh_nats, 3, 2)
    assert set(await read(fresh_nats)) == {"0", "1", "2", "3", "4"}
    assert {"3", "4"} <= set(await read(fresh_nats, after)) <= {"2", "3", "4"}
    assert await read(fresh_nats, datetime.now(UTC) + timedelta(minutes=1)) == []


async def test_a_stream_that_is_gone_holds_nothing(fresh_nats: Nats) -> None:
    await publish(fresh_nats, 0, 3)
    await fresh_nats.js.delete_stream("EVT_ORDER")
    assert await read(fresh_nats) == []


async def test_a_broker_that_is_away_is_told(fresh_nats: Nats) -> None:
    nats = Nats("nats://127.0.0.1:1", "test")
    await nats.open()
    try:
        with pytest.raises(Unavailable):
            await read(nats)
    finally:
        await nats.close()


async def test_what_is_lost_on_its_way_is_noticed(fresh_nats: Nats) -> None:
    """As when a connection breaks off and comes back: what was on its way isn't sent again."""
    await publish(fresh_nats, 0, 900)
    batches = replay(fresh_nats, CONFIRMED, LONG_AGO)
    assert len(await anext(batches)) == 500
    # Another takes some of this reading's messages.
    (name,) = {c.name for c in await fresh_nats.js.consumers_info("EVT_ORDER")} - {
        c.durable for c in TOPOLOGY.consumers
    }
    thief = await fresh_nats.js.pull_subscribe_bind(name, stream="EVT_ORDER")
    assert len(await thief.fetch(10, timeout=2)) == 10
    with pytest.raises(Unavailable):
        await anext(batches)
