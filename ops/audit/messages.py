"""Notifications, outboxes, streams and dead letters."""

from collections.abc import Iterator

import asyncpg
from nats.js.errors import NotFoundError

from chassis.messaging.dead_letters import DeadLetters
from chassis.messaging.topology import TOPOLOGY
from chassis.outbox.joined import JoinedOutbox
from chassis.outbox.port import Outbox
from chassis.outbox.postgres import PostgresOutbox
from ops.audit.customers import erased_customers
from ops.audit.report import Report
from ops.audit.stores import OWNERS, Stores

_STAGES = {1: "NEW", 2: "IN_PROGRESS", 3: "FAILED", 4: "PROCESSED"}


async def audit_messages(stores: Stores, report: Report) -> None:
    notifications = await stores.notifications.fetch("SELECT * FROM notifications")
    orders = await stores.orders.fetch(
        "SELECT order_id, customer_id, status FROM orders WHERE customer_id <> '' AND settled"
    )
    erased = await erased_customers(stores)
    expected = [order for order in orders if order["customer_id"] not in erased]
    report.add("notifications end", len(notifications), _notification_faults(notifications, expected))
    waiting = await waiting_messages(stores)
    report.add("outboxes and consumers are empty", len(waiting), (text for text in waiting.values() if text))
    letters = await DeadLetters(stores.nats).list()
    dead = [f"dead letter {x.sequence}: {x.type} {x.id} in {x.consumer}: {x.error}" for x in letters]
    report.add("no dead letters", len(letters), dead)
    report.add("every message type is known", len(TOPOLOGY.routes), await _unknown_types(stores))


def _notification_faults(rows: list[asyncpg.Record], orders: list[asyncpg.Record]) -> Iterator[str]:
    message_ids: dict[str, str] = {}
    for row in rows:
        notification_id, stage = row["notification_id"], row["stage"]
        if stage not in (3, 4):
            yield f"notification {notification_id} is still {_STAGES.get(stage, stage)}"
        if stage == 4 and bool(row["message_id"]) == row["muted"]:
            how = "muted, with" if row["muted"] else "PROCESSED without"
            yield f"notification {notification_id} is {how} a Message-ID"
        if (
            row["message_id"]
            and (other := message_ids.setdefault(row["message_id"], notification_id)) != notification_id
        ):
            yield f"notifications {other} and {notification_id} have one Message-ID"
    told = {row["order_id"] for row in rows}
    for order in orders:
        if str(order["order_id"]) not in told:
            yield f"nobody was notified about order {order['order_id']}, which is {order['status']}"


async def waiting_messages(stores: Stores) -> dict[str, str]:
    """By queue, what waits in it as a sentence; empty where nothing does."""
    found: dict[str, str] = {}
    outboxes: dict[str, Outbox] = {f"{owner}_svc": PostgresOutbox(stores.postgres[owner]) for owner in OWNERS}
    outboxes["catalog_svc"] = JoinedOutbox(stores.products.outbox, stores.taxonomy.outbox)
    for service, outbox in outboxes.items():
        count = (await outbox.backlog()).entries
        found[f"outbox of {service}"] = f"{count} messages wait in the outbox of {service}" if count else ""
    untold = (await stores.taxonomy.tree()).untold()
    found["category paths"] = f"{len(untold)} categories have a path that nobody was told" if untold else ""
    for consumer in TOPOLOGY.consumers:
        try:
            info = await stores.nats.js.consumer_info(consumer.stream, consumer.durable)
        except NotFoundError:
            found[consumer.durable] = f"consumer {consumer.durable} doesn't exist"
            continue
        count = (info.num_pending or 0) + (info.num_ack_pending or 0)
        found[consumer.durable] = f"{count} messages wait for {consumer.durable}" if count else ""
    return found


async def _unknown_types(stores: Stores) -> list[str]:
    """Subjects in the streams that no route of the topology explains."""
    faults = []
    for stream in TOPOLOGY.streams:
        if stream.name == "DLQ":
            continue
        prefixes = {f"{route.prefix}." for route in TOPOLOGY.routes.values() if route.stream == stream.name}
        info = await stores.nats.js.stream_info(stream.name, subjects_filter=">")
        for subject in info.state.subjects or {}:
            if not any(subject.startswith(prefix) for prefix in prefixes):
                faults.append(f"stream {stream.name} holds {subject}, a type that nobody declared")
    return faults
