"""How far the index is behind the events."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from chassis.clock import Clock
from chassis.errors import Unavailable


class ProjectionLag:
    """Of one replica. `observe` is told of each event's type, and the seconds from its time until it had its effect."""

    def __init__(self, clock: Clock, observe: Callable[[str, float], None]):
        self._clock = clock
        self._observe = observe
        self._oldest: dict[object, datetime] = {}
        self._last: float | None = None

    @contextmanager
    def applying(self, by: object, events: Sequence[tuple[str, datetime]]) -> Iterator[None]:
        """Around the handling of events, each with its type and time, of which `by` has one batch at a time in hand.
        What an outage leaves undone stays in hand."""
        self._oldest[by] = min(time for _, time in events)
        try:
            yield
        except Unavailable:
            raise
        except BaseException:
            del self._oldest[by]
            raise
        del self._oldest[by]
        now = self._clock.now()
        lags = [max(0.0, (now - time).total_seconds()) for _, time in events]
        for (kind, _), seconds in zip(events, lags, strict=True):
            self._observe(kind, seconds)
        self._last = max(lags)

    @property
    def seconds(self) -> float | None:
        """Since the oldest event in hand or, where there is none, what it was of the last; None before the first."""
        if self._oldest:
            return max(0.0, (self._clock.now() - min(self._oldest.values())).total_seconds())
        return self._last
