"""Watching orders: many watchers, one reader of the store."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from time import monotonic

import structlog

from chassis.clock import rest
from chassis.errors import NotFound, Unavailable
from order_svc.application.ports import WatchedOrders
from order_svc.domain.order import Order, OrderPlaced, Recorded

log = structlog.get_logger(__name__)

_POLL = 1.0


class _Watched:
    """An order with watchers: its states by version (index 0 is version 1), and what wakes them at the next."""

    __slots__ = ("changed", "states", "watchers")

    def __init__(self) -> None:
        self.states: list[Order] = []
        self.changed = asyncio.Event()
        self.watchers = 0

    def grow(self, order_id: str, history: Sequence[Recorded]) -> None:
        for recorded in history[len(self.states) :]:
            if isinstance(recorded.event, OrderPlaced):
                self.states.append(Order.begun(order_id, recorded.event, recorded.at))
            else:
                self.states.append(self.states[-1].after(recorded.event, recorded.at))

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class OrderWatch:
    """A worker that reads the orders being watched, together: those it is told of at once, all of them every second.

    Hints only say where to look; what watchers get always comes from the store.
    """

    name = "order watch"

    def __init__(self, *, poll: float = _POLL):
        self._poll = poll
        self._watched: dict[str, _Watched] = {}
        self._hinted: set[str] = set()
        self._woken = asyncio.Event()
        self._stopping = False
        self._store: WatchedOrders | None = None

    def reads(self, store: WatchedOrders) -> None:
        """The store hints at its changes here, and this reads the store: one of the two comes first."""
        self._store = store

    @property
    def idle(self) -> bool:
        return not self._watched

    def changed(self, order_ids: Collection[str]) -> None:
        """A hint that these orders have changed."""
        if hinted := self._watched.keys() & set(order_ids):
            self._hinted |= hinted
            self._woken.set()

    async def run(self) -> None:
        poll_at = monotonic() + self._poll
        while not self._stopping:
            await rest(self._woken, poll_at - monotonic())
            self._woken.clear()
            hinted, self._hinted = self._hinted, set()
            try:
                await self._read(hinted)
                if monotonic() >= poll_at:
                    poll_at = monotonic() + self._poll
                    await self._read(await self._outdated())
            except Unavailable as error:
                log.warning("watched orders can't be read", error=str(error))

    async def stop(self) -> None:
        """End every watch."""
        self._stopping = True
        self._woken.set()
        for watched in self._watched.values():
            watched.wake()

    async def watch(self, order_id: str, after_version: int = 0) -> AsyncIterator[Order]:
        """The order as it is, then after each of its changes, until it is settled; nothing up to `after_version`.

        Raises NotFound, and Unavailable when the service stops: a watch that just ends has seen the settled order.
        """
        watched = self._watched.setdefault(order_id, _Watched())
        watched.watchers += 1
        try:
            await self._read([order_id])
            if not watched.states:
                raise NotFound(f"no order {order_id}")
            sent = after_version or len(watched.states) - 1
            while True:
                for state in watched.states[sent:]:
                    sent = state.version
                    yield state
                if sent < len(watched.states):
                    continue  # it changed while the last states were being taken
                if watched.states[-1].settled:
                    return
                if self._stopping:
                    raise Unavailable("the service is stopping; watch again", reason="STOPPING")
                await watched.changed.wait()
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(order_id, None)

    async def _outdated(self) -> Collection[str]:
        if not self._watched:
            return ()
        assert self._store is not None
        versions = await self._store.versions(self._watched.keys())
        return [id for id, known in self._watched.items() if versions.get(id, 0) > len(known.states)]

    async def _read(self, order_ids: Collection[str]) -> None:
        if not order_ids:
            return
        assert self._store is not None
        for order_id, history in (await self._store.histories(order_ids)).items():
            if (watched := self._watched.get(order_id)) and len(history) > len(watched.states):
                watched.grow(order_id, history)
                watched.wake()
