"""Watching what customers are told: many watchers, one reader of what is new."""

from collections.abc import AsyncIterator, Collection

from chassis.watching import POLL, Watch, Watched
from notification_svc.application.ports import Feed
from notification_svc.domain.notification import Notification

_PAGE = 100


class _Head(Watched):
    """The highest number of a customer's notifications that is known here."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        super().__init__()
        self.number = 0


class NotificationWatch(Watch[_Head]):
    """The customers whose notifications are being watched."""

    def __init__(self, *, poll: float = POLL):
        super().__init__("notification watch", _Head, poll=poll)
        self._feed: Feed | None = None

    def reads(self, feed: Feed) -> None:
        """The store hints at its changes here, and this reads the store: one of the two comes first."""
        self._feed = feed

    async def head(self, customer_id: str) -> int:
        """The highest number now, 0 where there is none: what comes later has a higher one."""
        assert self._feed is not None
        return (await self._feed.heads([customer_id])).get(customer_id, 0)

    async def watch(self, customer_id: str, after: int) -> AsyncIterator[Notification]:
        """All with a number above `after`, then each new one.

        Raises Unavailable when the service stops or the store can't be read; whoever watches again goes on after the
        last number.
        """
        assert self._feed is not None
        with self._watching(customer_id) as watched:
            while True:
                change = watched.changed
                page = await self._feed.after(customer_id, after, _PAGE)
                for notification in page:
                    after = notification.number
                    yield notification
                if len(page) < _PAGE:
                    await self._next_change(change)

    async def _outdated(self) -> Collection[str]:
        return self._watched.keys()

    async def _read(self, keys: Collection[str]) -> None:
        if not keys:
            return
        assert self._feed is not None
        for customer_id, number in (await self._feed.heads(keys)).items():
            if (watched := self._watched.get(customer_id)) and number > watched.number:
                watched.number = number
                watched.wake()
