"""What delivering needs. Every port raises errors.Unavailable where what is behind it can't be reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polymart.notification.v1.notification_pb2 import Notification, NotificationKind

from chassis.messaging.envelope import Envelope
from email_svc.domain.delivery import Delivery


class Overtaken(Exception):
    """The log's entry isn't the one that was read: somebody else came between."""


class Deliveries(Protocol):
    """The delivery log. An entry is replaced only by who knows its revision."""

    async def get(self, notification_id: str) -> tuple[Delivery, int] | None:
        """The entry and its revision."""
        ...

    async def put(self, notification_id: str, delivery: Delivery, revision: int) -> int:
        """Write over the entry of that revision, 0 where there is none yet. Returns the new one.

        Raises Overtaken."""
        ...


@dataclass(frozen=True, slots=True)
class Recipient:
    """`muted` are the kinds of notification that aren't wanted by e-mail."""

    name: str
    email: str
    muted: frozenset["NotificationKind.ValueType"] = frozenset()


class Customers(Protocol):
    async def find(self, customer_id: str) -> Recipient | None:
        """Who that is, `email` empty if they have none; None if nobody."""
        ...

    async def code(self, customer_id: str, personal_data: bytes) -> str | None:
        """The code that an event carries sealed; None if nobody can open it any more."""
        ...


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it goes over the wire, and its envelope's addresses."""

    sender: str
    recipient: str
    data: bytes


class Unsendable(Exception):
    """No letter can be written to this address."""


class Letters(Protocol):
    def new_message_id(self, notification_id: str) -> str: ...

    def write(self, notification: Notification, to: Recipient, message_id: str, code: str = "") -> Letter:
        """`code` is what a letter about one tells. Raises Unsendable."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """The mail server's no; worth another attempt if `temporary`."""

    reason: str
    temporary: bool


class Mailer(Protocol):
    async def send(self, letter: Letter) -> Refusal | None:
        """Hand the letter over; None once the server has taken it."""
        ...


class Announcements(Protocol):
    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Publish; returns once the broker has stored them."""
        ...
