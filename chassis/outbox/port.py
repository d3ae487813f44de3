"""The outbox: messages stored in one atomic write with their cause, until the broker acknowledged them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, Self

from chassis.messaging.envelope import Envelope

LEASE = timedelta(seconds=6)
# How much a page of pending entries takes of memory, but for the entry or document that goes beyond.
PAGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A message as it will be published. Those of one `aggregate_id` are published in the order of adding."""

    id: str
    aggregate_id: str
    subject: str
    headers: dict[str, str]
    data: bytes

    @classmethod
    def of(cls, envelope: Envelope) -> Self:
        return cls(envelope.id, envelope.aggregate_id, envelope.subject, envelope.headers(), envelope.data)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be published: how many entries, and the age of the oldest."""

    entries: int
    oldest_seconds: float


class Outbox(Protocol):
    """What a relay needs of a store. Raises errors.Unavailable where the store can't be reached."""

    async def lease(self, holder: str, duration: timedelta = LEASE) -> bool:
        """Take or renew the right to publish: False while another holder's lease lasts."""
        ...

    async def release(self, holder: str) -> None:
        """Give the lease back, if it is this holder's."""
        ...

    async def pending(self, limit: int, skip: Collection[str] = ()) -> Sequence[OutboxEntry]:
        """About `limit` entries, fewer once they have PAGE_BYTES, leaving out the aggregates in `skip`.

        Those of one aggregate are in order and without gaps, from its oldest on. Between aggregates a table gives the
        oldest first; documents come in no order that is promised.
        """
        ...

    async def remove(self, published: Sequence[OutboxEntry]) -> None:
        """Forget exactly these entries, which `pending` gave."""
        ...

    async def backlog(self) -> Backlog: ...

    def on_added(self, nudge: Callable[[], None]) -> None:
        """Call `nudge` soon after entries were added by this process."""
        ...
