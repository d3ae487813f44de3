"""Watching orders: many watchers, one reader of the store."""

from collections.abc import AsyncIterator, Collection, Sequence

from chassis.errors import NotFound
from chassis.watching import POLL, Watch, Watched
from order_svc.application.ports import WatchedOrders
from order_svc.domain.order import Order, OrderPlaced, Recorded


class _States(Watched):
    """An order's states by version (index 0 is version 1)."""

    __slots__ = ("states",)

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Order] = []

    def grow(self, order_id: str, history: Sequence[Recorded]) -> None:
        for recorded in history[len(self.states) :]:
            if isinstance(recorded.event, OrderPlaced):
                self.states.append(Order.begun(order_id, recorded.event, recorded.at))
            else:
                self.states.append(self.states[-1].after(recorded.event, recorded.at))


class OrderWatch(Watch[_States]):
    """The orders being watched."""

    def __init__(self, *, poll: float = POLL):
        super().__init__("order watch", _States, poll=poll)
        self._store: WatchedOrders | None = None

    def reads(self, store: WatchedOrders) -> None:
        """The store hints at its changes here, and this reads the store: one of the two comes first."""
        self._store = store

    async def watch(self, order_id: str, after_version: int = 0) -> AsyncIterator[Order]:
        """The order as it is, then after each of its changes, until it is settled; nothing up to `after_version`.

        Raises NotFound, and Unavailable when the service stops: a watch that just ends has seen the settled order.
        """
        with self._watching(order_id) as watched:
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
                await self._next_change(watched.changed)

    async def _outdated(self) -> Collection[str]:
        if not self._watched:
            return ()
        assert self._store is not None
        versions = await self._store.versions(self._watched.keys())
        return [id for id, known in self._watched.items() if versions.get(id, 0) > len(known.states)]

    async def _read(self, keys: Collection[str]) -> None:
        if not keys:
            return
        assert self._store is not None
        for order_id, history in (await self._store.histories(keys)).items():
            if (watched := self._watched.get(order_id)) and len(history) > len(watched.states):
                watched.grow(order_id, history)
                watched.wake()
