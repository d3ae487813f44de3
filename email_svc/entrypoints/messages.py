"""What email_svc reacts to."""

import asyncio
from collections.abc import Mapping, Sequence

from google.protobuf.message import Message
from polymart.notification.v1.events_pb2 import NotificationCreated, NotificationRetried

from chassis.messaging.envelope import Envelope
from chassis.messaging.subscription import OUTAGES, Handler, Postponed
from chassis.telemetry import current_traceparent, span
from email_svc.application.postman import Postman

IN_FLIGHT = 16


async def deliver_all(messages: Sequence[Envelope], *, tx: Postman) -> None:
    """Deliver each notification by itself, IN_FLIGHT at a time; what one of them comes to doesn't touch the others.

    Raises Unavailable in an outage, when nothing new is begun; else whatever a delivery failed with; else Postponed
    for those whose time hasn't come.
    """
    free = asyncio.Semaphore(IN_FLIGHT)
    outages: list[Exception] = []
    failures: list[Exception] = []
    delays: dict[str, float] = {}

    async def deliver(message: Envelope) -> None:
        async with free:
            if outages:
                return
            try:
                with span("deliver e-mail", parent=message.traceparent):
                    assert isinstance(message.payload, NotificationCreated | NotificationRetried)
                    cause = message.within(current_traceparent())
                    later = await tx.deliver(message.payload.notification, cause)
            except OUTAGES as error:
                outages.append(error)
            except Exception as error:
                failures.append(error)
            else:
                if later is not None:
                    delays[message.id] = later.total_seconds()

    async with asyncio.TaskGroup() as group:
        for message in messages:
            group.create_task(deliver(message))
    if errors := outages or failures:
        raise errors[0]
    if delays:
        raise Postponed(delays)


HANDLERS: Mapping[type[Message], Handler[Postman]] = {
    NotificationCreated: deliver_all,
    NotificationRetried: deliver_all,
}
