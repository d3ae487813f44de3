"""Use case: deliver a notification by e-mail."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, timedelta

import structlog
from polymart.email.v1.events_pb2 import NotificationFailed, NotificationMuted, NotificationSending, NotificationSent
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
    Recipient,
    Unsendable,
)
from email_svc.domain.delivery import TIMING, Delivery, State, Timing
from email_svc.domain.reasons import without

log = structlog.get_logger(__name__)

_SOON = timedelta(seconds=1)
_UNKNOWN = "the customer is unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Postman:
    """One process's hand on the delivery log; `holder` tells its claims from those of others.

    `merchant` is whom notifications without a customer are for; without one these aren't sent.
    """

    deliveries: Deliveries
    customers: Customers
    letters: Letters
    mailer: Mailer
    announcements: Announcements
    clock: Clock
    merchant: Recipient | None = None
    timing: Timing = TIMING
    holder: str = field(default_factory=uuid7)
    # Those being delivered at this moment: the claim doesn't tell two messages about one delivery apart.
    _in_hand: set[str] = field(default_factory=set, init=False, repr=False)
    # What an attempt came to, by notification, until the log has it: it isn't repeated because that was away.
    _unlogged: dict[str, Delivery] = field(default_factory=dict, init=False, repr=False)

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
        if key in self._in_hand:
            return _SOON
        self._in_hand.add(key)
        try:
            delivery = await self._bring_to_end(notification, cause)
        except Overtaken:
            return _SOON
        finally:
            self._in_hand.discard(key)
        match delivery.state:
            case State.OPEN:
                return delivery.wait(self.holder, now=self.clock.now())
            case State.DELIVERED:
                sent = NotificationSent(notification_id=key, message_id=delivery.message_id)
                await self._announce(cause, delivery, sent)
            case State.MUTED:
                await self._announce(cause, delivery, NotificationMuted(notification_id=key))
            case State.FAILED:
                await self._announce(cause, delivery, NotificationFailed(notification_id=key, reason=delivery.reason))
        return None

    async def _bring_to_end(self, notification: Notification, cause: Envelope) -> Delivery:
        """The delivery after an attempt; as it is, where it has ended or is somebody else's."""
        key = notification.notification_id
        found = await self.deliveries.get(key)
        if found and (found[0].ended(notification.attempt) or found[0].wait(self.holder, now=self.clock.now())):
            self._unlogged.pop(key, None)
            return found[0]
        claim, revision = await self._claim(notification, found)
        await self._announce(cause, claim, NotificationSending(notification_id=key))
        after = self._unlogged.get(key)
        if after is None or after.attempt != claim.attempt:
            try:
                async with asyncio.timeout(self.timing.attempt.total_seconds()):
                    after = await self._attempt(notification, claim)
            except TimeoutError as error:
                raise Unavailable("the attempt took too long") from error
            self._unlogged[key] = after
        await self.deliveries.put(key, after, revision)
        del self._unlogged[key]
        return after

    async def _claim(self, notification: Notification, found: tuple[Delivery, int] | None) -> tuple[Delivery, int]:
        now, key = self.clock.now(), notification.notification_id
        if found is None:
            message_id = notification.message_id or self.letters.new_message_id(key)
            attempt, revision = max(notification.attempt, 1), 0
            claim = Delivery.begin(message_id, self.holder, attempt, now=now, timing=self.timing)
        else:
            delivery, revision = found
            if delivery.state is State.FAILED:
                claim = delivery.reopened(notification.attempt, self.holder, now=now, timing=self.timing)
            else:
                claim = delivery.claimed(self.holder, now=now, timing=self.timing)
        return claim, await self.deliveries.put(key, claim, revision)

    async def _attempt(self, notification: Notification, claim: Delivery) -> Delivery:
        """What the delivery is after this attempt."""
        to = self.merchant
        if notification.customer_id:
            to = await self.customers.find(notification.customer_id)
            if to is None:
                return self._failed(notification, claim, _UNKNOWN)
        # Asked at this moment, and nowhere kept: what was switched off a second ago isn't sent.
        if to is None or notification.kind in to.muted:
            return claim.muted()
        if not to.email:
            return self._failed(notification, claim, "the customer has no e-mail address")
        content, code = notification.content, ""
        if content.HasField("expire_time") and content.expire_time.ToDatetime(UTC) <= self.clock.now():
            return self._failed(notification, claim, "it is too late for it")
        if content.personal_data:
            opened = await self.customers.code(notification.customer_id, content.personal_data)
            if opened is None:
                return self._failed(notification, claim, _UNKNOWN)
            code = opened
        try:
            letter = self.letters.write(notification, to, claim.message_id, code)
        except Unsendable as error:
            return self._failed(notification, claim, str(error))
        refusal = await self.mailer.send(letter)
        if refusal is None:
            return claim.delivered()
        reason = without(refusal.reason, to.email.partition("@")[0], to.name)
        if not refusal.temporary:
            return self._failed(notification, claim, reason)
        log.warning("e-mail deferred", notification_id=notification.notification_id, reason=reason)
        return claim.deferred(reason, now=self.clock.now(), timing=self.timing)

    def _failed(self, notification: Notification, claim: Delivery, reason: str) -> Delivery:
        log.warning("e-mail failed", notification_id=notification.notification_id, reason=reason)
        return claim.failed(reason)

    async def _announce(
        self,
        cause: Envelope,
        delivery: Delivery,
        event: NotificationSending | NotificationSent | NotificationMuted | NotificationFailed,
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
