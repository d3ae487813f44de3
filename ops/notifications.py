"""`polymart notification`: list what customers and the merchant were told, and have what failed delivered after all."""

from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from polymart.notification.v1 import notification_service_pb2 as pb
from polymart.notification.v1.notification_pb2 import Notification, NotificationKind, NotificationStatus
from rich.markup import escape
from rich.table import Table

from ops.clients import Clients, asynchronous, clients, console, print_data
from ops.orders import TIMEOUT, JsonOption

app = typer.Typer(no_args_is_help=True, help="See what was told to whom, and have it delivered after all.")

_KIND, _STATUS = "NOTIFICATION_KIND_", "NOTIFICATION_STATUS_"
_PAGE = 500

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="As `polymart notification list` shows them.")]


@app.command("list")
@asynchronous
async def list_notifications(
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    order: Annotated[str, typer.Option(help="Only those about this order.")] = "",
    status: Annotated[str, typer.Option(help="Only NEW, IN_PROGRESS, PROCESSED or FAILED.")] = "",
    kind: Annotated[str, typer.Option(help="Only of this kind, such as ORDER_CONFIRMED or LOW_STOCK.")] = "",
    unread: Annotated[bool, typer.Option("--unread", help="Only those that nobody read.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: JsonOption = False,
) -> None:
    """List notifications, newest first."""
    request = pb.ListNotificationsRequest(
        customer_id=customer,
        order_id=order,
        status=NotificationStatus.Value(_named("--status", status, _STATUS, NotificationStatus.keys())),
        kind=NotificationKind.Value(_named("--kind", kind, _KIND, NotificationKind.keys())),
        unread=unread,
    )
    async with clients() as c:
        found = await _all(c, request, limit)
    if json:
        print_data([_data(notification) for notification in found])
        return
    table = Table("notification", "since", "to", "kind", "status", "attempt", "failure")
    for one in found:
        table.add_row(
            one.notification_id,
            one.create_time.ToDatetime().isoformat(sep=" ", timespec="seconds"),
            escape(one.customer_id or "the merchant"),
            NotificationKind.Name(one.kind).removeprefix(_KIND),
            NotificationStatus.Name(one.status).removeprefix(_STATUS) + (" (muted)" if one.muted else ""),
            str(one.attempt),
            escape(one.failure),
        )
    console.print(table if found else "no notifications")


@app.command()
@asynchronous
async def retry(
    ids: Ids = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that FAILED.")] = False,
    json: JsonOption = False,
) -> None:
    """Have notifications that FAILED delivered after all, each in a new attempt with its own Message-ID."""
    if bool(ids) == failed:
        raise ValueError("name notifications, or --failed for all that failed")
    async with clients() as c:
        keys = list(ids or ())
        if failed:
            request = pb.ListNotificationsRequest(status=NotificationStatus.NOTIFICATION_STATUS_FAILED)
            keys = [notification.notification_id for notification in await _all(c, request)]
        retried = []
        for key in keys:
            request_one = pb.RetryNotificationRequest(notification_id=key)
            retried.append(await c.notifications.RetryNotification(request_one, timeout=TIMEOUT))
            if not json:
                console.print(f"{key}: attempt {retried[-1].attempt} is due", markup=False)
    if json:
        print_data([_data(notification) for notification in retried])
    elif not retried:
        console.print("nothing failed")


async def _all(c: Clients, request: pb.ListNotificationsRequest, limit: int | None = None) -> list[Notification]:
    """Pages of them, together `limit` at most."""
    found: list[Notification] = []
    while limit is None or len(found) < limit:
        request.page_size = _PAGE if limit is None else min(limit - len(found), _PAGE)
        # Other page sizes of the same question share their tokens.
        page = await c.notifications.ListNotifications(request, timeout=TIMEOUT)
        found += page.notifications
        if not (token := page.next_page_token):
            break
        request.page_token = token
    return found


def _named(option: str, text: str, prefix: str, names: list[str]) -> str:
    known = [name.removeprefix(prefix) for name in names[1:]]
    if text and text.upper() not in known:
        raise ValueError(f"{option} must be one of {', '.join(known)}")
    return f"{prefix}{text.upper() or 'UNSPECIFIED'}"


def _data(notification: Notification) -> object:
    return MessageToDict(notification, preserving_proto_field_name=True)
