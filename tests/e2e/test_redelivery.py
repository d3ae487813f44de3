"""Redelivery without the broker's help: streams deleted, made again, and filled with the same messages, shuffled."""

import asyncio
import hashlib
import json
import random
import secrets

import asyncpg
import pytest
from elasticsearch import AsyncElasticsearch
from nats.aio.msg import Msg

from chassis.ids import uuid7
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.topology import DLQ, TOPOLOGY
from ops.audit.stores import open_stores
from search_svc.adapters.mappings import PARTS, PRODUCTS
from tests.e2e.shop import Shop

# Leases and ledgers of the machinery, not effects of messages.
NOT_EFFECTS = {"relay_lease", "schema_migrations"}


@pytest.mark.parametrize("known", [True, False], ids=["as they were", "under ids that no inbox knows"])
async def test_the_same_messages_again_change_no_store(shop: Shop, known: bool) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 (shown when the test fails)
    nats = Nats(shop.stack.info().nats_url, "redelivery test")
    await nats.open()
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        # Also what JetStream answers and acknowledges passes by; messages have a type.
        if message.headers and "ce-type" in message.headers:
            heard.append(message)

    for subject in ("evt.>", "cmd.>"):
        await nats.client.subscribe(subject, cb=hear)
    await nats.client.flush()
    try:
        skus, customer = await shop.product(variants=3, stock=40), await shop.customer()
        orders = await shop.load(skus, 30, customer=customer)
        orders += [await shop.place(*skus, token=token) for token in ("tok_late", "tok_capture_refused")]
        await asyncio.gather(*(shop.settled(order) for order in orders))
        await shop.invariants_hold()
        leaving_out = NOT_EFFECTS if known else NOT_EFFECTS | {"inbox"}
        before = await digests(shop, leaving_out)
        messages = list(heard)
        assert {message.headers["ce-type"] for message in messages} >= {
            "polymart.inventory.v1.ReserveStock", "polymart.payment.v1.PaymentCaptured",
            "polymart.order.v1.OrderConfirmed", "polymart.email.v1.NotificationSent",
        }  # fmt: skip
        for stream in TOPOLOGY.streams:
            if stream.name != DLQ:
                await nats.js.delete_stream(stream.name)
        await ensure_topology(nats)
        random.Random(seed).shuffle(messages)
        for message in messages:
            # Without what the broker knows it by: the batch it came in, and the id that the broker itself would drop.
            headers = {name: value for name, value in message.headers.items() if not name.startswith("Nats-")}
            if not known:
                headers["ce-id"] = uuid7()
            await nats.js.publish(message.subject, message.data, headers=headers)
        await shop.invariants_hold()
        assert await digests(shop, leaving_out) == before
    finally:
        await nats.close()


async def digests(shop: Shop, leaving_out: set[str]) -> dict[str, str]:
    """A digest of every table but some, of every collection and index, and the number of mails."""
    found = {"mails": str(len(list(shop.stack.mailbox.glob("*.eml"))))}
    for owner, url in shop.stack.auditor_urls().items():
        connection = await asyncpg.connect(url)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            for (table,) in tables:
                if table not in leaving_out:
                    found[f"{owner}.{table}"] = await connection.fetchval(
                        f"SELECT md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '')) FROM {table} t"  # noqa: S608
                    )
        finally:
            await connection.close()
    async with open_stores(shop.stack.info()) as stores:
        products = [repr(p) async for page in stores.products.stream(include_deleted=True) for p in page]
        found["catalog"] = digest(sorted(products))
        for name in (PRODUCTS, PARTS):
            found[f"index {name}"] = digest(await documents(stores.index.client, name))
    return found


async def documents(client: AsyncElasticsearch, index: str) -> list[str]:
    await client.indices.refresh(index=index)
    answer = await client.search(index=index, size=10_000)
    return sorted(json.dumps([hit["_id"], hit["_source"]], sort_keys=True) for hit in answer["hits"]["hits"])


def digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
