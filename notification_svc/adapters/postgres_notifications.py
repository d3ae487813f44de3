"""Notifications in PostgreSQL."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from uuid import UUID

from asyncpg import Record
from google.protobuf.json_format import MessageToJson, Parse
from polymart.notification.v1.events_pb2 import NotificationCreated, NotificationRetried
from polymart.notification.v1.notification_pb2 import NotificationContent

from chassis.ids import derived_id
from chassis.messaging.envelope import Envelope
from chassis.outbox.postgres import PostgresOutbox
from chassis.postgres import Postgres, Transaction
from notification_svc.application.ports import Filter, Position
from notification_svc.domain.notification import Fact, Kind, Notification, Report, Stage
from notification_svc.protos import content_from_proto, content_to_proto, to_proto

_COLUMNS = (
    "notification_id, customer_id, number, kind, subject, content, read_time, "
    "attempt, stage, failure, message_id, muted, start_time, end_time, create_time, update_time"
)
# Sorted here and below, so that two batches with rows in common lock them in one order.
_NUMBERS = """
INSERT INTO recipients (customer_id, last_number)
SELECT * FROM unnest($1::text[], $2::bigint[]) AS r (customer_id, notifications) ORDER BY customer_id
ON CONFLICT (customer_id) DO UPDATE SET last_number = recipients.last_number + EXCLUDED.last_number
RETURNING customer_id, last_number, erased
"""
_KNOWN = "SELECT notification_id FROM notifications WHERE notification_id = ANY ($1::uuid[])"
_ADD = """
INSERT INTO notifications (
    notification_id, customer_id, number, kind, subject, order_id, content,
    attempt, stage, failure, message_id, muted, create_time, update_time
)
SELECT id, customer_id, number, kind, subject, order_id, content, 0, 1, '', '', false, created, created
FROM unnest(
    $1::uuid[], $2::text[], $3::bigint[], $4::smallint[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[]
) AS n (id, customer_id, number, kind, subject, order_id, content, created)
ORDER BY id
ON CONFLICT DO NOTHING
RETURNING notification_id
"""
_LOCK = f"""
SELECT {_COLUMNS} FROM notifications WHERE notification_id = ANY ($1::uuid[]) ORDER BY notification_id FOR UPDATE
"""  # noqa: S608
# One row each: an UPDATE that meets a row twice would apply one of the two, and not say which.
_REPORT = """
UPDATE notifications AS n
SET attempt = r.attempt, stage = r.stage, failure = r.failure, message_id = r.message_id, muted = r.muted,
    start_time = r.start_time, end_time = r.end_time, update_time = $9
FROM unnest(
    $1::uuid[], $2::integer[], $3::smallint[], $4::text[], $5::text[], $6::boolean[],
    $7::timestamptz[], $8::timestamptz[]
) AS r (id, attempt, stage, failure, message_id, muted, start_time, end_time)
WHERE n.notification_id = r.id
"""
_ERASED = """
INSERT INTO recipients (customer_id, erased) SELECT id, true FROM unnest($1::text[]) AS r (id) ORDER BY id
ON CONFLICT (customer_id) DO UPDATE SET erased = true
"""
_EMPTY = """
UPDATE notifications SET content = '{}', failure = '', update_time = $2 WHERE customer_id = ANY ($1::text[])
"""
_READ = "UPDATE notifications SET read_time = $2, update_time = $2 WHERE notification_id = ANY ($1::uuid[])"
_GET = f"SELECT {_COLUMNS} FROM notifications WHERE notification_id = $1"  # noqa: S608
_HEADS = "SELECT customer_id, last_number FROM recipients WHERE customer_id = ANY ($1::text[])"
_AFTER = f"""
SELECT {_COLUMNS} FROM notifications WHERE customer_id = $1 AND number > $2 ORDER BY number LIMIT $3
"""  # noqa: S608


class PostgresNotifications:
    """Notifications and Feed (application.ports) over the tables `notifications` and `recipients`.

    `changed` is told of customers with something new.
    """

    def __init__(self, db: Postgres, outbox: PostgresOutbox, changed: Callable[[Collection[str]], None]):
        self._db = db
        self._outbox = outbox
        self._changed = changed

    async def add(self, causes: Sequence[tuple[Notification, Envelope]], *, tx: Transaction) -> None:
        known = {row["notification_id"] for row in await tx.fetch(_KNOWN, [n.notification_id for n, _ in causes])}
        # Looked at first, so that messages that come again use up no numbers.
        unknown = [(n, cause) for n, cause in causes if UUID(n.notification_id) not in known]
        if not unknown:
            return
        numbered = await self._numbered(unknown, tx)
        notifications = [notification for notification, _ in numbered]
        facts = [notification.fact for notification in notifications]
        rows = await tx.fetch(
            _ADD,
            [notification.notification_id for notification in notifications],
            [fact.customer_id for fact in facts],
            [notification.number for notification in notifications],
            [fact.kind.value for fact in facts],
            [fact.subject for fact in facts],
            [fact.content.order_id for fact in facts],
            [MessageToJson(content_to_proto(fact.content), indent=None) for fact in facts],
            [notification.create_time for notification in notifications],
        )
        new = {str(row["notification_id"]) for row in rows}
        created = [(n, cause) for n, cause in numbered if n.notification_id in new]
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
                for notification, cause in created
            ],
        )
        tx.after_commit(partial(self._changed, {notification.fact.customer_id for notification, _ in created}))

    async def _numbered(
        self, causes: Sequence[tuple[Notification, Envelope]], tx: Transaction
    ) -> list[tuple[Notification, Envelope]]:
        """Each with its number, without those of erased customers. Holds the customers until `tx` ends."""
        counts = Counter(notification.fact.customer_id for notification, _ in causes)
        rows = await tx.fetch(_NUMBERS, list(counts), list(counts.values()))
        last = {row["customer_id"]: row["last_number"] for row in rows if not row["erased"]}
        numbered = []
        for notification, cause in causes:
            if (customer_id := notification.fact.customer_id) in last:
                number = last[customer_id] - counts[customer_id] + 1
                counts[customer_id] -= 1
                numbered.append((replace(notification, number=number), cause))
        return numbered

    async def report(self, reports: Mapping[str, Report], now: datetime, *, tx: Transaction) -> set[str]:
        known = {str(row["notification_id"]): _report(row) for row in await tx.fetch(_LOCK, list(reports))}
        news = {key: merged for key, before in known.items() if (merged := before.merged(reports[key])) != before}
        await self._write_reports(news, now, tx)
        return reports.keys() - known.keys()

    async def _write_reports(self, reports: Mapping[str, Report], now: datetime, tx: Transaction) -> None:
        if reports:
            await tx.execute(
                _REPORT,
                list(reports),
                [report.attempt for report in reports.values()],
                [report.stage for report in reports.values()],
                [report.failure for report in reports.values()],
                [report.message_id for report in reports.values()],
                [report.muted for report in reports.values()],
                [report.start_time for report in reports.values()],
                [report.end_time for report in reports.values()],
                now,
            )

    async def forget(self, customer_ids: Collection[str], now: datetime, *, tx: Transaction) -> None:
        ids = sorted(set(customer_ids))
        await tx.execute(_ERASED, ids)
        await tx.execute(_EMPTY, ids, now)

    async def retry(self, notification_id: str, change: Callable[[Notification], Notification]) -> Notification | None:
        async with self._db.transaction() as tx:
            if (row := await tx.fetchrow(_LOCK, [notification_id])) is None:
                return None
            after = change(_notification(row))
            await self._write_reports({notification_id: after.report}, after.update_time, tx)
            envelope = Envelope.new(
                NotificationRetried(notification=to_proto(after)),
                aggregate_id=notification_id,
                source="notification_svc",
                id=derived_id(notification_id, "retried", str(after.report.attempt)),
            )
            await self._outbox.add(tx, [envelope])
        return after

    async def mark_read(
        self, customer_id: str, notification_ids: Collection[str], now: datetime
    ) -> Mapping[str, Notification]:
        async with self._db.transaction() as tx:
            rows = map(_notification, await tx.fetch(_LOCK, list(notification_ids)))
            found = {n.notification_id: n for n in rows if n.fact.customer_id == customer_id}
            unread = [key for key, notification in found.items() if notification.read_time is None]
            if len(found) == len(notification_ids) and unread:
                await tx.execute(_READ, unread, now)
                found.update({key: replace(found[key], read_time=now, update_time=now) for key in unread})
        return found

    async def heads(self, customer_ids: Collection[str]) -> Mapping[str, int]:
        rows = await self._db.fetch(_HEADS, list(customer_ids))
        return {row["customer_id"]: row["last_number"] for row in rows}

    async def after(self, customer_id: str, number: int, limit: int) -> Sequence[Notification]:
        return [_notification(row) for row in await self._db.fetch(_AFTER, customer_id, number, limit)]

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
        if which.kind is not None:
            conditions.append(("kind = ${}", (which.kind.value,)))
        if which.unread:
            conditions.append(("read_time IS NULL", ()))
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
    return Report(
        attempt=row["attempt"],
        stage=Stage(row["stage"]),
        failure=row["failure"],
        message_id=row["message_id"],
        muted=row["muted"],
        start_time=row["start_time"],
        end_time=row["end_time"],
    )


def _notification(row: Record) -> Notification:
    content = content_from_proto(Parse(row["content"], NotificationContent()))
    return Notification(
        notification_id=str(row["notification_id"]),
        fact=Fact(Kind(row["kind"]), row["customer_id"], content, row["subject"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        report=_report(row),
        number=row["number"],
        read_time=row["read_time"],
    )
