"""Outboxes, streams and dead letters."""

from nats.js.errors import NotFoundError

from chassis.messaging.dead_letters import DeadLetters
from chassis.messaging.topology import TOPOLOGY
from chassis.outbox.joined import JoinedOutbox
from chassis.outbox.port import Outbox
from chassis.outbox.postgres import PostgresOutbox
from ops.audit.report import Report
from ops.audit.stores import OWNERS, Stores


async def audit_messages(stores: Stores, report: Report) -> None:
    waiting = await waiting_messages(stores)
    report.add("outboxes and consumers are empty", len(waiting), (text for text in waiting.values() if text))
    letters = await DeadLetters(stores.nats).list()
    dead = [f"dead letter {x.sequence}: {x.type} {x.id} in {x.consumer}: {x.error}" for x in letters]
    report.add("no dead letters", len(letters), dead)
    report.add("every message type is known", len(TOPOLOGY.routes), await _unknown_types(stores))


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
