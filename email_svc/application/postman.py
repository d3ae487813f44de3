"""Use case: deliver a notification by e-mail."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationSending, NotificationSent
from polymart.notification.v1.notification_pb2 import Notification

from chassis.clock import Clock
from chassis.errors import InvalidArgument, Unavailable, Violation
from chassis.ids import derived_id, is_uuid, uuid7
from chassis.messaging.envelope import Envelope
from email_svc.application.ports import (
    Announcements,
    Customers,
    Deliveries,
    Letters,
    Mailer,
    Overtaken,
    Refusal,
    Unsendable,
)
from email_svc.domain.delivery import TIMING, Delivery, State, Timing

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postman:
    """One process's hand on the delivery log; `holder` tells its claims from those of others."""

    deliveries: Deliveries
    customers: Customers
    letters: Letters
    mailer: Mailer
    announcements: Announcements
    clock: Clock
    timing: Timing = TIMING
    holder: str = field(default_factory=uuid7)
    # What became of an attempt, by notification, until the log has it: it isn't repeated because that was away.
    _unlogged: dict[str, tuple[int, Refusal | None]] = field(default_factory=dict, init=False, repr=False)

    async def deliver(self, notification: Notification, cause: Envelope) -> timedelta | None:
        """Bring a delivery to its end and announce it. None: that is done; else try again after this time.

        Idempotent: of a delivery that has ended only the announcement is repeated, with the same id. The log is
        written right after the server's answer, before anything else, and the answer kept while that fails: only a
        process that dies between these two, or can't write until its claim is over, makes another send the message
        again, with the same Message-ID.
        Raises Unavailable in an outage, which counts as nobody's refusal, and InvalidArgument for an id that is none.
        """
        key = notification.notification_id
        if not is_uuid(key):
            raise InvalidArgument([Violation("notification_id", f"{key!r} is not a UUID")])
        try:
            found = await self.deliveries.get(key)
            if found is None or not found[0].final:
                if found and (wait := found[0].wait(self.holder, now=self.clock.now())):
                    return wait
                found = await self._claim(key, found)
                await self._announce(cause, found[0], NotificationSending(notification_id=key))
                found = await self._end(notification, *found)
        except Overtaken:
            return timedelta(seconds=1)
        delivery, _ = found
        if delivery.final:
            self._unlogged.pop(key, None)
        match delivery.state:
            case State.OPEN:
                return delivery.wait(self.holder, now=self.clock.now())
            case State.DELIVERED:
                sent = NotificationSent(notification_id=key, message_id=delivery.message_id)
                await self._announce(cause, delivery, sent)
            case State.FAILED:
                await self._announce(cause, delivery, NotificationFailed(notification_id=key, reason=delivery.reason))
        return None

    async def _claim(self, key: str, found: tuple[Delivery, int] | None) -> tuple[Delivery, int]:
        now = self.clock.now()
        if found is None:
            message_id = self.letters.new_message_id(key)
            claim, revision = Delivery.begin(message_id, self.holder, now=now, timing=self.timing), 0
        else:
            claim, revision = found[0].claimed(self.holder, now=now, timing=self.timing), found[1]
        return claim, await self.deliveries.put(key, claim, revision)

    async def _end(self, notification: Notification, claim: Delivery, revision: int) -> tuple[Delivery, int]:
        key = notification.notification_id
        attempt, refusal = self._unlogged.get(key, (0, None))
        if attempt != claim.attempt:
            try:
                async with asyncio.timeout(self.timing.attempt.total_seconds()):
                    refusal = await self._attempt(notification, claim)
            except TimeoutError as error:
                raise Unavailable("the attempt took too long") from error
            self._unlogged[key] = claim.attempt, refusal
        if refusal is None:
            after = claim.delivered()
        elif refusal.temporary:
            after = claim.deferred(refusal.reason, now=self.clock.now(), timing=self.timing)
        else:
            after = claim.failed(refusal.reason)
        if refusal is not None:
            log.warning("e-mail refused", notification_id=key, reason=refusal.reason)
        revision = await self.deliveries.put(key, after, revision)
        self._unlogged.pop(key, None)
        return after, revision

    async def _attempt(self, notification: Notification, claim: Delivery) -> Refusal | None:
        customer = await self.customers.find(notification.customer_id)
        if customer is None:
            return Refusal("the customer is unknown", temporary=False)
        if not customer.email:
            return Refusal("the customer has no e-mail address", temporary=False)
        try:
            letter = self.letters.write(notification, customer, claim.message_id)
        except Unsendable as error:
            return Refusal(str(error), temporary=False)
        return await self.mailer.send(letter)

    async def _announce(
        self,
        cause: Envelope,
        delivery: Delivery,
        event: NotificationSending | NotificationSent | NotificationFailed,
    ) -> None:
        event.attempt = delivery.attempt
        await self.announcements.send(
            [
                Envelope.new(
                    event,
                    aggregate_id=event.notification_id,
                    source="email_svc",
                    cause=cause,
                    id=derived_id(cause.id, type(event).__name__, str(delivery.attempt)),
                )
            ]
        )
