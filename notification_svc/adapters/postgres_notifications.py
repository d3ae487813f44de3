"""Notifications in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from asyncpg import Record
from google.protobuf.json_format import MessageToJson, Parse
from polymart.notification.v1.events_pb2 import NotificationCreated
from polymart.notification.v1.notification_pb2 import NotificationContent

from chassis.ids import derived_id
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from notification_svc.application.ports import Filter, Position
from notification_svc.domain.notification import Fact, Kind, Notification, Report, Stage
from notification_svc.protos import content_from_proto, content_to_proto, to_proto

_COLUMNS = "notification_id, customer_id, kind, content, attempt, stage, failure, message_id, create_time, update_time"
# Sorted, so that two batches with rows in common lock them in one order.
_ADD = """
INSERT INTO notifications (
    notification_id, customer_id, kind, subject, order_id, content,
    attempt, stage, failure, message_id, create_time, update_time
)
SELECT id, customer_id, kind, subject, order_id, content, 0, 1, '', '', created, created
FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::jsonb[], $7::timestamptz[])
    AS n (id, customer_id, kind, subject, order_id, content, created)
ORDER BY id
ON CONFLICT DO NOTHING
RETURNING notification_id
"""
_LOCK = """
SELECT notification_id, attempt, stage, failure, message_id FROM notifications
WHERE notification_id = ANY ($1::uuid[]) ORDER BY notification_id FOR UPDATE
"""
# One row each: an UPDATE that meets a row twice would apply one of the two, and not say which.
_REPORT = """
UPDATE notifications AS n
SET attempt = r.attempt, stage = r.stage, failure = r.failure, message_id = r.message_id, update_time = $6
FROM unnest($1::uuid[], $2::integer[], $3::smallint[], $4::text[], $5::text[])
    AS r (id, attempt, stage, failure, message_id)
WHERE n.notification_id = r.id
"""
_GET = f"SELECT {_COLUMNS} FROM notifications WHERE notification_id = $1"  # noqa: S608


class PostgresNotifications:
    """Notifications (application.ports) over the table `notifications`."""

    def __init__(self, db: Postgres, outbox: PostgresOutbox):
        self._db = db
        self._outbox = outbox

    async def add(self, causes: Sequence[tuple[Notification, Envelope]], *, tx: Transaction) -> None:
        notifications = [notification for notification, _ in causes]
        facts = [notification.fact for notification in notifications]
        rows = await tx.fetch(
            _ADD,
            [notification.notification_id for notification in notifications],
            [fact.customer_id for fact in facts],
            [fact.kind.value for fact in facts],
            [fact.subject for fact in facts],
            [fact.content.order_id for fact in facts],
            [MessageToJson(content_to_proto(fact.content), indent=None) for fact in facts],
            [notification.create_time for notification in notifications],
        )
        new = {str(row["notification_id"]) for row in rows}
        await self._outbox.add(
            tx,
            [
                Envelope.new(
                    NotificationCreated(notification=to_proto(notification)),
                    aggregate_id=notification.notification_id,
                    source="notification_svc",
                    cause=cause,
                    id=derived_id(notification.notification_id, "created"),
                )
                for notification, cause in causes
                if notification.notification_id in new
            ],
        )

    async def report(self, reports: Mapping[str, Report], now: datetime, *, tx: Transaction) -> set[str]:
        known = {str(row["notification_id"]): _report(row) for row in await tx.fetch(_LOCK, list(reports))}
        news = {key: merged for key, before in known.items() if (merged := before.merged(reports[key])) != before}
        if news:
            await tx.execute(
                _REPORT,
                list(news),
                [report.attempt for report in news.values()],
                [report.stage for report in news.values()],
                [report.failure for report in news.values()],
                [report.message_id for report in news.values()],
                now,
            )
        return reports.keys() - known.keys()

    async def get(self, notification_id: str) -> Notification | None:
        row = await self._db.fetchrow(_GET, notification_id)
        return _notification(row) if row else None

    async def page(self, which: Filter, after: Position | None, limit: int) -> Sequence[Notification]:
        conditions: list[tuple[str, tuple[object, ...]]] = []
        if which.customer_id:
            conditions.append(("customer_id = ${}", (which.customer_id,)))
        if which.order_id:
            # The second half lets the planner take the partial index.
            conditions.append(("order_id = ${} AND order_id <> ''", (which.order_id,)))
        if which.stage is not None:
            conditions.append(("stage = ${}", (which.stage,)))
        if after is not None:
            conditions.append(
                ("(create_time, notification_id) < (${}, ${})", (after.create_time, after.notification_id))
            )
        clauses, values = [], list[object]()
        for text, arguments in conditions:
            first = len(values) + 1
            clauses.append(text.format(*range(first, first + len(arguments))))
            values.extend(arguments)
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        rows = await self._db.fetch(
            f"SELECT {_COLUMNS} FROM notifications {where} "  # noqa: S608
            f"ORDER BY create_time DESC, notification_id DESC LIMIT ${len(values) + 1}",
            *values,
            limit,
        )
        return [_notification(row) for row in rows]


def _report(row: Record) -> Report:
    return Report(row["attempt"], Stage(row["stage"]), row["failure"], row["message_id"])


def _notification(row: Record) -> Notification:
    content = content_from_proto(Parse(row["content"], NotificationContent()))
    return Notification(
        notification_id=str(row["notification_id"]),
        fact=Fact(Kind(row["kind"]), row["customer_id"], content),
        create_time=row["create_time"],
        update_time=row["update_time"],
        report=_report(row),
    )
