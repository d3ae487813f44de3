"""The delivery log as auditors read it."""

import asyncio
from datetime import UTC, datetime

import pytest

from chassis.messaging.nats import Nats
from email_svc.adapters.nats_deliveries import NatsDeliveries, ensure_bucket
from email_svc.domain.delivery import TIMING, Delivery


@pytest.mark.parametrize("count", [0, 1, 1201])
async def test_all_of_the_log_is_read_each_entry_as_it_is_last(fresh_nats: Nats, count: int) -> None:
    await ensure_bucket(fresh_nats)
    log = NatsDeliveries(fresh_nats)
    begun = Delivery.begin("<x@shop.example>", "me", now=datetime.now(UTC), timing=TIMING)

    async def deliver(key: str) -> None:
        await log.put(key, begun.delivered(), await log.put(key, begun, 0))

    keys = [f"n-{n}" for n in range(count)]
    await asyncio.gather(*map(deliver, keys))
    for _ in range(20):
        assert await log.everything() == dict.fromkeys(keys, begun.delivered())
