import asyncio
from dataclasses import replace

import pytest
from nats.js.errors import APIError
from polymart.inventory.v1.commands_pb2 import ReserveStock

from chassis.errors import Internal, Unavailable
from chassis.messaging.envelope import Envelope
from chassis.messaging.nats import Nats, ensure_consumer, ensure_topology
from chassis.messaging.publisher import Publisher
from chassis.messaging.topology import TOPOLOGY
from tests.conftest import NatsServer, until
from tests.integration.messaging.support import CONSUMER, confirmed, entries, stored, stored_ids


@pytest.mark.parametrize("count", [1, 7, 8, 500, 501, 1203])
async def test_all_are_stored_in_order(fresh_nats: Nats, count: int) -> None:
    sent = entries([confirmed(f"o-{n % 5}") for n in range(count)])
    assert (await Publisher(fresh_nats).attempt(sent)).acked == {entry.id for entry in sent}
    found = await stored_ids(fresh_nats)
    assert sorted(found) == sorted(entry.id for entry in sent)
    for aggregate in range(5):
        mine = [entry.id for entry in sent if entry.aggregate_id == f"o-{aggregate}"]
        assert [id for id in found if id in set(mine)] == mine


async def test_what_is_published_is_what_was_in_the_outbox(fresh_nats: Nats) -> None:
    for count in (1, 9):
        sent = [confirmed(f"o-{n}") for n in range(count)]
        await Publisher(fresh_nats).attempt(entries(sent))
        for message in (await stored(fresh_nats))[-count:]:
            envelope = Envelope.decode(message.subject, message.headers, message.data or b"")
            assert envelope in sent
            assert (message.headers or {})["Nats-Msg-Id"] == envelope.id


async def test_a_batch_with_messages_that_are_stored_already_adds_the_others(fresh_nats: Nats) -> None:
    publisher = Publisher(fresh_nats)
    sent = entries([confirmed(f"o-{n}") for n in range(40)])
    await publisher.attempt(sent[10:12])
    assert (await publisher.attempt(sent)).acked == {entry.id for entry in sent}
    assert sorted(await stored_ids(fresh_nats)) == sorted(entry.id for entry in sent)


async def test_several_streams_in_one_go(fresh_nats: Nats) -> None:
    command = Envelope.new(ReserveStock(), aggregate_id="o-1", source="order_svc")
    sent = entries([confirmed("o-1"), command])
    assert (await Publisher(fresh_nats).attempt(sent)).acked == {entry.id for entry in sent}
    assert await stored_ids(fresh_nats, "CMD") == [command.id]


@pytest.mark.parametrize("others", [3, 30])
async def test_a_message_that_is_too_large_holds_up_its_aggregate_alone(fresh_nats: Nats, others: int) -> None:
    limit = fresh_nats.client.max_payload
    first, large, after = entries([confirmed("large") for _ in range(3)])
    # Within the limit without its headers, beyond it with them.
    large = replace(large, data=b"x" * (limit - 10))
    rest = entries([confirmed(f"o-{n}") for n in range(others)])
    outcome = await Publisher(fresh_nats).attempt([first, large, after, *rest])
    assert outcome.acked == {entry.id for entry in (first, *rest)}
    assert list(outcome.refused) == [large.id]
    assert fresh_nats.connected


async def test_a_subject_that_no_stream_takes_is_refused(fresh_nats: Nats) -> None:
    good, bad = entries([confirmed("one"), confirmed("two")])
    outcome = await Publisher(fresh_nats).attempt([good, replace(bad, subject="nowhere.at.all")])
    assert (outcome.acked, set(outcome.refused)) == ({good.id}, {bad.id})


async def test_without_an_outbox_a_refusal_is_the_callers_bug(fresh_nats: Nats) -> None:
    huge = Envelope.new(ReserveStock(order_id="x" * 2_000_000), aggregate_id="o-1", source="order_svc")
    with pytest.raises(Internal, match="limit"):
        await Publisher(fresh_nats).send([confirmed(), huge])


async def test_a_missing_stream_is_an_outage_not_a_refusal(fresh_nats: Nats) -> None:
    await fresh_nats.js.delete_stream("EVT_ORDER")
    for count in (1, 20):
        outcome = await Publisher(fresh_nats).attempt(entries([confirmed(f"o-{n}") for n in range(count)]))
        assert (outcome.acked, outcome.refused) == (set(), {})


async def test_without_a_broker_nothing_is_acknowledged_and_nothing_hangs(own_nats: NatsServer) -> None:
    own_nats.kill()
    nats = Nats(own_nats.url, "test")
    async with asyncio.timeout(4):
        await nats.open()
        assert not nats.connected
        with pytest.raises(Unavailable):
            await nats.ready()
        assert (await Publisher(nats).attempt(entries([confirmed()]))).acked == set()
        with pytest.raises(Unavailable):
            await Publisher(nats).send([confirmed()])
        own_nats.start()
        await until(lambda: nats.connected)
        await nats.ready()
    await nats.close()


async def test_a_lost_stream_is_made_again_on_as_many_servers_as_the_cluster_has(own_nats: NatsServer) -> None:
    """A broker that is alone says that it was asked to."""
    nats = Nats(own_nats.url, "test", replicas=3)
    await nats.open()
    with pytest.raises(APIError, match="replicas > 1"):
        await ensure_consumer(nats, CONSUMER)
    await nats.close()


async def test_the_topology_can_be_ensured_again_and_again(fresh_nats: Nats) -> None:
    await Publisher(fresh_nats).send([confirmed("o-1"), confirmed("o-2")])
    await asyncio.gather(*(ensure_topology(fresh_nats) for _ in range(2)))
    names = {info.config.name for info in await fresh_nats.js.streams_info()}
    assert names == {stream.name for stream in TOPOLOGY.streams}
    assert (await fresh_nats.js.stream_info("EVT_ORDER")).state.messages == 2
