"""The connection to NATS JetStream, and the streams and consumers that the topology declares."""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import TypeVar

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from chassis.errors import Unavailable
from chassis.messaging.topology import TOPOLOGY, Consumer, Stream, Topology

log = structlog.get_logger(__name__)

T = TypeVar("T")

# How long what a dead process had in hand waits for another. One that lives tells three times as often that it does.
ACK_WAIT = 10.0
MAX_ACK_PENDING = 2_000
_STREAM_EXISTS = 10058
_NEW_CLIENT = 0.25


def wire_size(headers: Mapping[str, str], data: bytes) -> int:
    """What a message counts with the broker, which closes the connection of a client that goes beyond its limit."""
    return len(data) + 64 + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())


class Nats:
    """A connection that is made in the background and made again for ever.

    `open` returns at once, also while no broker runs; `connected` says how things stand. What is published
    meanwhile isn't acknowledged, and waits in its outbox. `client` and `js` are others after the broker has refused
    what a client did: what was made with them must be made again once it says ConnectionClosedError.
    `replicas`: how many of the cluster's servers keep a stream that is made by way of it.
    """

    def __init__(self, url: str, name: str, *, replicas: int = 1):
        self.replicas = replicas
        self._url = url
        self._name = name
        self._client = Client()
        self.js: JetStreamContext = self._client.jetstream(timeout=5)
        self._connecting: asyncio.Task[None] | None = None
        self._closing = False
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._lost = asyncio.Event()

    @property
    def client(self) -> Client:
        return self._client

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def open(self) -> None:
        self._connecting = asyncio.create_task(self._stay_connected(), name=f"nats connect {self._name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._opened.wait()

    async def _stay_connected(self) -> None:
        """A client connects again by itself, unless the broker said that it did wrong: then another takes over."""
        while True:
            try:
                await self._connect()
                self._opened.set()
                await self._closed.wait()
                log.error("nats client closed", client=self._name, error=str(self._client.last_error))
            except (NatsError, OSError) as error:
                log.warning("nats refuses to connect", client=self._name, error=str(error))
                with contextlib.suppress(NatsError, OSError):
                    await self._client.close()
            await asyncio.sleep(_NEW_CLIENT)
            self._closed.clear()
            self._client = Client()
            self.js = self._client.jetstream(timeout=5)

    async def _connect(self) -> None:
        await self._client.connect(
            self._url,
            name=self._name,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # fractions work
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=8 * 1024 * 1024,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
        )

    async def while_connected(self, step: Coroutine[None, None, T]) -> T:
        """Await `step`, but no longer than the connection lasts: its answers won't come. Raises Unavailable then."""
        task, lost = asyncio.create_task(step), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Unavailable("the connection to NATS was lost")
        finally:
            task.cancel()
            lost.cancel()

    async def close(self) -> None:
        self._closing = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await asyncio.wait_for(self._client.close(), 3)

    async def ready(self) -> None:
        """Raises Unavailable unless connected."""
        if not self.connected:
            raise Unavailable("NATS can't be reached")

    async def _on_error(self, error: Exception) -> None:
        log.debug("nats error", client=self._name, error=str(error) or type(error).__name__)

    async def _on_disconnected(self) -> None:
        self._lost.set()
        self._lost = asyncio.Event()
        if not self._closing:
            log.warning("nats connection lost", client=self._name)

    async def _on_closed(self) -> None:
        self._closed.set()

    async def _on_reconnected(self) -> None:
        log.info("nats connection is back", client=self._name)


async def ensure_topology(nats: Nats, topology: Topology = TOPOLOGY) -> None:
    """Create or update every declared stream and durable consumer. Idempotent; raises nats' errors."""
    await asyncio.gather(*(ensure_stream(nats, stream) for stream in topology.streams))
    await asyncio.gather(*(ensure_consumer(nats, consumer, topology) for consumer in topology.consumers))


async def ensure_stream(nats: Nats, stream: Stream) -> None:
    config = StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=RetentionPolicy.WORK_QUEUE if stream.work_queue else RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=stream.max_age.total_seconds(),
        duplicate_window=120,
        num_replicas=nats.replicas,
        allow_atomic=True,
        allow_direct=True,
    )
    try:
        await nats.js.add_stream(config)
    except BadRequestError as error:
        if error.err_code != _STREAM_EXISTS:
            raise
        await nats.js.update_stream(config)


async def ensure_consumer(nats: Nats, consumer: Consumer, topology: Topology = TOPOLOGY) -> None:
    """Create or update a durable consumer; creates its stream where that is missing."""
    config = ConsumerConfig(
        name=consumer.durable,
        durable_name=consumer.durable,
        filter_subjects=topology.filters(consumer),
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,
        max_ack_pending=MAX_ACK_PENDING,
    )
    try:
        await nats.js.add_consumer(consumer.stream, config)
    except NotFoundError:
        await ensure_stream(nats, next(s for s in topology.streams if s.name == consumer.stream))
        await nats.js.add_consumer(consumer.stream, config)
