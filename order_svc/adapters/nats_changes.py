"""Hints from other replicas: every published order event passes by on core NATS."""

import asyncio
import contextlib

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from chassis.clock import rest
from chassis.messaging.nats import Nats
from order_svc.application.watching import OrderWatch

_SUBJECT = "evt.order.>"
_CHECK = 0.25


class NatsChanges:
    """A worker that listens while somebody watches. What it misses, the watch finds by its own poll."""

    name = "order changes"

    def __init__(self, nats: Nats, watch: OrderWatch):
        self._nats = nats
        self._watch = watch
        self._stopping = asyncio.Event()
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        while not self._stopping.is_set():
            if self._nats.connected and self._watch.idle == (self._subscription is not None):
                with contextlib.suppress(NatsError, OSError):
                    await self._toggle()
            await rest(self._stopping, _CHECK)
        if self._subscription is not None:
            with contextlib.suppress(NatsError, OSError):
                await self._subscription.unsubscribe()

    async def stop(self) -> None:
        self._stopping.set()

    async def _toggle(self) -> None:
        if self._subscription is None:
            self._subscription = await self._nats.client.subscribe(_SUBJECT, cb=self._heard)
        else:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        self._watch.changed([message.subject.rpartition(".")[2]])
