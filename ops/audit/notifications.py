"""Notifications against what happened to their orders, and against what became of their e-mails."""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime

import asyncpg
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from polymart.order.v1 import events_pb2

from chassis.ids import derived_id
from chassis.messaging.topology import INBOX_RETENTION
from email_svc.adapters.nats_deliveries import NatsDeliveries
from email_svc.domain.delivery import Delivery, State
from notification_svc.domain.notification import MERCHANT, Fact, Kind, Notification, Stage
from notification_svc.entrypoints.messages import fact_of
from notification_svc.protos import content_to_proto
from ops.audit.customers import erased_customers
from ops.audit.report import Report
from ops.audit.stores import Stores
from order_svc.adapters.event_codec import upcast

Rows = list[asyncpg.Record]

_PAGE = 500
_NIL = "00000000-0000-0000-0000-000000000000"
_KINDS = {kind.value: kind for kind in Kind}
_STAGES = {stage.value: stage.name for stage in Stage}
_ENDS = {State.DELIVERED: Stage.PROCESSED, State.MUTED: Stage.PROCESSED, State.FAILED: Stage.FAILED}

# What customers are told of.
_EVENTS: Mapping[str, type[Message]] = {
    message.DESCRIPTOR.name: message
    for message in (
        events_pb2.OrderConfirmed,
        events_pb2.OrderRejected,
        events_pb2.OrderCancelled,
        events_pb2.OrderShipped,
        events_pb2.OrderDelivered,
        events_pb2.OrderRefunded,
    )
}
_HAPPENED = """
SELECT stream_id, version, type, schema_version, data, occurred_at FROM events
WHERE type = ANY ($1::text[]) AND (stream_id, version) > ($2::uuid, $3) ORDER BY stream_id, version LIMIT $4
"""
_TOLD = "SELECT notification_id, customer_id, content FROM notifications WHERE notification_id = ANY ($1::uuid[])"
_ALL = """
SELECT notification_id::text AS id, customer_id, kind, subject, order_id, attempt, stage, failure, message_id,
    muted, create_time
FROM notifications
"""


async def audit_notifications(stores: Stores, report: Report) -> None:
    rows = await stores.notifications.fetch(_ALL)
    log = await NatsDeliveries(stores.nats).everything()
    erased = await erased_customers(stores)
    faults, told = await _untold(stores, erased)
    report.add("notifications end", len(rows), _unended(rows))
    report.add("notifications tell what happened", len(rows), [*faults, *_untrue(rows, told)])
    report.add("notifications and deliveries agree", len(rows), _delivery_faults(rows, log, erased))


def _unended(rows: Rows) -> Iterator[str]:
    message_ids: dict[str, str] = {}
    for row in rows:
        if row["stage"] not in _ENDS.values():
            yield f"notification {row['id']} is still {_stage(row)}"
        if row["stage"] == Stage.PROCESSED and bool(row["message_id"]) == row["muted"]:
            how = "muted, with" if row["muted"] else "PROCESSED without"
            yield f"notification {row['id']} is {how} a Message-ID"
        if row["message_id"] and (other := message_ids.setdefault(row["message_id"], row["id"])) != row["id"]:
            yield f"notifications {other} and {row['id']} have one Message-ID"


async def _untold(stores: Stores, erased: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """What happened to orders and their customers weren't told, or not so; and the ids of what they were told, each
    with its order.

    Those who are `erased` are owed nothing, and what they were told says nothing any more.
    """
    faults: list[str] = []
    found: dict[str, str] = {}
    after = _NIL, 0
    while events := await stores.orders.fetch(_HAPPENED, list(_EVENTS), *after, _PAGE):
        after = events[-1]["stream_id"], events[-1]["version"]
        due: dict[str, Fact] = {}
        for event in events:
            try:
                fact = _fact(event)
            except (DecodeError, ValueError) as error:
                faults.append(f"order {event['stream_id']}: its {event['type']} can't be read: {error}")
                continue
            if fact:
                due[Notification.about(fact, now=event["occurred_at"]).notification_id] = fact
        told = {str(row["notification_id"]): row for row in await stores.notifications.fetch(_TOLD, list(due))}
        found |= {key: due[key].content.order_id for key in told}
        for key, fact in due.items():
            faults += _differences(key, fact, told.get(key), gone=fact.customer_id in erased)
    return faults, found


def _fact(event: asyncpg.Record) -> Fact | None:
    data = upcast(event["type"], event["schema_version"], event["data"])
    return fact_of(_EVENTS[event["type"]].FromString(data))


def _differences(key: str, fact: Fact, row: asyncpg.Record | None, *, gone: bool) -> Iterator[str]:
    if row is None:
        if not gone:
            yield f"nobody was notified about order {fact.subject}: {fact.kind.name} is missing"
        return
    name = f"notification {key} about order {fact.subject}"
    if row["customer_id"] != fact.customer_id:
        yield f"{name} is for customer {row['customer_id']}, the order is {fact.customer_id}'s"
    if not gone and json.loads(row["content"]) != MessageToDict(content_to_proto(fact.content)):
        yield f"{name} says something else than happened"


def _untrue(rows: Rows, told: Mapping[str, str]) -> Iterator[str]:
    """Notifications that aren't what they say they are, and those of orders to which nothing such happened."""
    for row in rows:
        name, kind = f"notification {row['id']}", _KINDS.get(row["kind"])
        if kind is None:
            yield f"{name} is of the unknown kind {row['kind']}"
        elif row["id"] != derived_id("notification", kind.name, row["subject"]):
            yield f"{name} isn't {kind.name} about {row['subject']}"
        elif row["order_id"] != told.get(row["id"], ""):
            yield f"{name} is {kind.name} about order {row['order_id'] or 'none'}, to which that didn't happen"
        elif kind is Kind.WELCOME and row["customer_id"] != row["subject"]:
            yield f"{name} welcomes {row['subject']} and is for customer {row['customer_id']}"
        elif (kind is Kind.LOW_STOCK) != (row["customer_id"] == MERCHANT):
            yield f"{name} is {kind.name} and for {row['customer_id'] or 'the merchant'}"


def _delivery_faults(rows: Rows, log: Mapping[str, Delivery], erased: Collection[str]) -> Iterator[str]:
    """Each notification ended as its delivery did, which the log knows for INBOX_RETENTION. Why an e-mail failed isn't
    kept of customers that are `erased`."""
    forgotten = datetime.now(UTC) - INBOX_RETENTION
    for row in rows:
        name, delivery = f"notification {row['id']}", log.get(row["id"])
        if delivery is None:
            if row["create_time"] > forgotten:
                yield f"{name} is {_stage(row)}, the delivery log doesn't know it"
        elif (_ENDS.get(delivery.state), delivery.state is State.MUTED) != (row["stage"], row["muted"]):
            how = ", muted" if row["muted"] else ""
            yield f"{name} is {_stage(row)}{how}, its delivery is {delivery.state.name}"
        elif delivery.state is State.DELIVERED and row["message_id"] != delivery.message_id:
            yield f"{name} has the Message-ID {row['message_id']}, it was sent with {delivery.message_id}"
        elif row["attempt"] != delivery.attempt:
            yield f"{name} ended in attempt {row['attempt']}, its delivery in attempt {delivery.attempt}"
        elif row["customer_id"] not in erased and row["failure"] != delivery.reason:
            yield f"{name} ended with {row['failure']!r}, its delivery with {delivery.reason!r}"
    for key in log.keys() - {row["id"] for row in rows}:
        yield f"the delivery log knows notification {key}, which doesn't exist"


def _stage(row: asyncpg.Record) -> str:
    return _STAGES.get(row["stage"], f"at stage {row['stage']}")
