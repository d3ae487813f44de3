"""Hints from other replicas: what they publish passes by on core NATS."""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Protocol

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from chassis.clock import rest
from chassis.messaging.nats import Nats

_CHECK = 0.25


class Hinted(Protocol):
    """Who wants hints, unless it is idle."""

    @property
    def idle(self) -> bool: ...
    def changed(self, keys: Collection[str]) -> None: ...


class NatsHints:
    """A worker that listens while somebody watches. What it misses, the watch finds by its own poll.

    `key_of` tells from a message what it is about.
    """

    def __init__(self, nats: Nats, subject: str, watch: Hinted, key_of: Callable[[Msg], str]):
        self.name = f"hints {subject}"
        self._nats = nats
        self._subject = subject
        self._watch = watch
        self._key_of = key_of
        self._stopping = asyncio.Event()
        self._client = nats.client
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        while not self._stopping.is_set():
            if self._client is not self._nats.client:  # a client that was closed takes its subscriptions along
                self._client, self._subscription = self._nats.client, None
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
            self._subscription = await self._client.subscribe(self._subject, cb=self._heard)
        else:
            subscription, self._subscription = self._subscription, None
            await subscription.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        self._watch.changed([self._key_of(message)])


def last_token(message: Msg) -> str:
    """The aggregate's id, where it is one token as it is."""
    return message.subject.rpartition(".")[2]
