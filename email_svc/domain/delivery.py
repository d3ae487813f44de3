"""The delivery of one notification, from its first claim to its end."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Self


@dataclass(frozen=True, slots=True)
class Timing:
    """`claim`: how long a process that fell silent keeps a delivery; `attempt`: how long one attempt may take, less
    than that. `delays`: after each temporary refusal, the last of which is followed by one last attempt."""

    claim: timedelta = timedelta(seconds=20)
    attempt: timedelta = timedelta(seconds=15)
    delays: tuple[timedelta, ...] = tuple(timedelta(seconds=s) for s in (1, 4, 16, 64, 256))


TIMING = Timing()


class State(Enum):
    OPEN = "OPEN"
    DELIVERED = "DELIVERED"
    MUTED = "MUTED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the delivery log holds of a notification.

    `attempt` counts from 1. While OPEN nobody but `holder` may touch it before `until`; `refusals` are temporary
    ones. `message_id` is the same in every attempt. `reason` says why it FAILED, or was refused last. MUTED: not
    wanted, and not sent.
    """

    state: State
    attempt: int
    message_id: str
    holder: str
    until: datetime
    refusals: int = 0
    reason: str = ""

    @classmethod
    def begin(cls, message_id: str, holder: str, attempt: int = 1, *, now: datetime, timing: Timing) -> Self:
        return cls(State.OPEN, attempt, message_id, holder, now + timing.claim)

    def ended(self, attempt: int = 0) -> bool:
        """Whether nothing is left to do, for somebody who asks for this attempt: a later one than that which FAILED is
        worth another try."""
        return self.state is not State.OPEN and not (self.state is State.FAILED and self.attempt < attempt)

    def wait(self, holder: str, *, now: datetime) -> timedelta:
        """How long until `holder` may claim it."""
        if self.state is not State.OPEN or holder == self.holder:
            return timedelta(0)
        return max(self.until - now, timedelta(0))

    def claimed(self, holder: str, *, now: datetime, timing: Timing) -> Self:
        """Claimed once more: by its holder it is the same attempt, after an outage; by another the next one."""
        attempt = self.attempt if holder == self.holder else self.attempt + 1
        return replace(self, attempt=attempt, holder=holder, until=now + timing.claim)

    def reopened(self, attempt: int, holder: str, *, now: datetime, timing: Timing) -> Self:
        """Claimed after it FAILED, because somebody asks for a later attempt."""
        return type(self).begin(self.message_id, holder, attempt, now=now, timing=timing)

    def delivered(self) -> Self:
        return replace(self, state=State.DELIVERED, reason="")

    def muted(self) -> Self:
        return replace(self, state=State.MUTED, reason="")

    def failed(self, reason: str) -> Self:
        return replace(self, state=State.FAILED, reason=reason)

    def deferred(self, reason: str, *, now: datetime, timing: Timing) -> Self:
        """After a temporary refusal: nobody's until its delay is over, or failed where there were enough of them."""
        if self.refusals == len(timing.delays):
            return self.failed(f"given up after {self.refusals + 1} attempts: {reason}")
        until = now + timing.delays[self.refusals]
        return replace(self, holder="", until=until, refusals=self.refusals + 1, reason=reason)
