"""Consuming: batches from a durable pull consumer, each handled in one transaction, then acknowledged."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Generic, Protocol, TypeVar

import structlog
from google.protobuf.message import Message
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, ConnectionReconnectingError, NoRespondersError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import NoStreamResponseError, NotFoundError, ServiceUnavailableError
from opentelemetry.trace import Span, StatusCode

from chassis.clock import rest
from chassis.errors import Aborted, DeadlineExceeded, Unavailable
from chassis.inbox.port import UnitOfWork
from chassis.messaging.dead_letters import DeadLetters
from chassis.messaging.envelope import Envelope, Undecodable
from chassis.messaging.nats import ACK_WAIT, Nats, ensure_consumer
from chassis.messaging.topology import TOPOLOGY, Consumer, Topology
from chassis.telemetry import current_traceparent, span

log = structlog.get_logger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# What says nothing about the message: an engine or a peer can't be reached. Handling pauses until it can.
OUTAGES = (
    Unavailable,
    DeadlineExceeded,
    OSError,
    TimeoutError,
    ConnectionClosedError,
    ConnectionReconnectingError,
    NoRespondersError,
    NoStreamResponseError,
    ServiceUnavailableError,
)
_FETCH_TIMEOUT = 0.5
_CONFLICT_ATTEMPTS = 8
_LONGEST_PAUSE = 2.0
_FAILURES = 5
_FAILURES_REMEMBERED = 10_000
_LAG_INTERVAL = 5.0
_PRUNE_INTERVAL = 3600.0


class Postponed(Exception):
    """Raised by a handler for messages that are to come again later, which is no failure: `delays`, seconds by
    message id. The rest of the batch is handled again without them."""

    def __init__(self, delays: Mapping[str, float]):
        super().__init__(f"{len(delays)} messages postponed")
        self.delays = delays


class Handler(Protocol[T_contra]):
    """The effects of a batch of messages, in `tx`: all of them or, by raising, none."""

    async def __call__(self, messages: Sequence[Envelope], *, tx: T_contra) -> None: ...


class SubscriptionMetrics(Protocol):
    def message(self, type: str, outcome: str, seconds: float, count: int = 1) -> None: ...
    def dead_letter(self, consumer: str, type: str) -> None: ...
    def lag(self, consumer: str, pending: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Delivery:
    """A message in hand. `messages` has more than one where the batch holds it several times."""

    envelope: Envelope
    messages: list[Msg]
    span: Span | None = None
    settled: bool = False
    began: float = field(default_factory=perf_counter)

    @property
    def id(self) -> str:
        return self.envelope.id


class Subscription(Generic[T]):
    """A worker that hands a durable consumer's messages to handlers, and never loses or repeats an effect.

    A batch is one transaction of `unit_of_work`. One that fails is halved until the bad message stands alone:
    that one is tried again after growing delays, then put in the DLQ, while the others pass. An outage is
    nobody's failure: the batch is kept until it can be handled.

    `handlers` may know more types than this consumer takes. Raises ValueError if it takes one without a
    handler.
    """

    def __init__(
        self,
        nats: Nats,
        consumer: Consumer,
        handlers: Mapping[type[Message], Handler[T]],
        unit_of_work: UnitOfWork[T],
        metrics: SubscriptionMetrics,
        batch: int = 300,
        *,
        topology: Topology = TOPOLOGY,
        first_delay: float = 1.0,
    ):
        self.name = consumer.durable
        self._nats = nats
        self._consumer = consumer
        self._handlers = {message.DESCRIPTOR.full_name: handler for message, handler in handlers.items()}
        if missing := set(consumer.types) - self._handlers.keys():
            raise ValueError(f"{consumer.durable} has no handler for {', '.join(sorted(missing))}")
        self._unit_of_work = unit_of_work
        self._metrics = metrics
        self._batch = batch
        self._topology = topology
        self._first_delay = first_delay
        self._dead_letters = DeadLetters(nats)
        self._failures: dict[str, int] = {}
        self._stopping = asyncio.Event()
        self._pull: JetStreamContext.PullSubscription | None = None

    async def run(self) -> None:
        chores = asyncio.create_task(self._chores(), name=f"{self.name} chores")
        try:
            while not self._stopping.is_set():
                if messages := await self._fetch():
                    await self._process(messages)
        finally:
            chores.cancel()
            await asyncio.wait({chores})
            if self._pull is not None:
                pull, self._pull = self._pull, None
                with contextlib.suppress(NatsError, OSError):
                    await pull.unsubscribe()

    async def stop(self) -> None:
        self._stopping.set()

    async def _fetch(self) -> list[Msg]:
        if not self._nats.connected:
            await rest(self._stopping, 0.1)
            return []
        try:
            if self._pull is None:
                self._pull = await self._nats.js.pull_subscribe_bind(
                    self._consumer.durable, stream=self._consumer.stream
                )
            return await self._pull.fetch(self._batch, timeout=_FETCH_TIMEOUT)
        except (NotFoundError, ServiceUnavailableError):
            await self._create_consumer()
        except TimeoutError:
            pass
        except (NatsError, OSError) as error:
            if isinstance(error, ConnectionClosedError):
                self._pull = None
            log.warning("fetch failed", consumer=self.name, error=str(error) or type(error).__name__)
            await rest(self._stopping, 0.25)
        return []

    async def _create_consumer(self) -> None:
        try:
            await ensure_consumer(self._nats, self._consumer, self._topology)
            log.info("consumer created", consumer=self.name)
        except (NatsError, OSError) as error:
            log.warning("consumer can't be created", consumer=self.name, error=str(error))
            await rest(self._stopping, 0.5)

    async def _process(self, messages: Sequence[Msg]) -> None:
        deliveries: dict[str, _Delivery] = {}
        for message in messages:
            try:
                envelope = Envelope.decode(message.subject, message.headers, message.data)
                if envelope.type not in self._handlers:
                    raise Undecodable(f"{message.subject}: no handler for {envelope.type}")
            except Undecodable as error:
                await self._unreadable(message, error)
                continue
            if known := deliveries.get(envelope.id):
                known.messages.append(message)
            else:
                deliveries[envelope.id] = _Delivery(envelope, [message])
        suspects = [d for d in deliveries.values() if d.id in self._failures]
        others = [d for d in deliveries.values() if d.id not in self._failures]
        with self._traced(list(deliveries.values())):
            async with self._kept_in_progress(list(deliveries.values())):
                await self._handle(others)
                for suspect in suspects:
                    await self._handle([suspect])

    @contextlib.contextmanager
    def _traced(self, deliveries: Sequence[_Delivery]) -> Iterator[None]:
        """A span for the batch in a trace of its own, and one for each message in the trace of its cause."""
        with contextlib.ExitStack() as spans:
            size = {"messaging.batch.message_count": len(deliveries)}
            batch = spans.enter_context(span(f"receive {self.name}", kind="consumer", attributes=size))
            for delivery in deliveries if batch.is_recording() else ():
                envelope = delivery.envelope
                about = {"messaging.message.id": delivery.id, "messaging.consumer.group.name": self.name}
                delivery.span = spans.enter_context(
                    span(
                        f"process {envelope.type}",
                        # Without one, a trace of its own too rather than the message's before.
                        parent=envelope.traceparent or "",
                        kind="consumer",
                        attributes=about,
                    )
                )
                delivery.envelope = envelope.within(current_traceparent())
            yield

    async def _handle(self, deliveries: list[_Delivery]) -> None:
        """Settle every delivery, one way or another."""
        if not deliveries:
            return
        conflicts = 0
        pause = 0.05
        while True:
            try:
                fresh = await self._attempt(deliveries)
            except OUTAGES as error:
                log.warning("paused", consumer=self.name, error=str(error) or type(error).__name__)
                await rest(self._stopping, pause)
                if self._stopping.is_set():
                    await self._give_back(deliveries)
                    return
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Aborted as error:
                # A concurrent change won: the same batch is right to try again as it is.
                conflicts += 1
                if conflicts == _CONFLICT_ATTEMPTS:
                    await self._failed(deliveries, error)
                    return
                self._count("retried", deliveries)
                await asyncio.sleep(random.uniform(0.005, 0.02) * conflicts)
            except Postponed as postponed:
                for delivery in deliveries:
                    if (delay := postponed.delays.get(delivery.id)) is not None:
                        await self._give_back([delivery], delay)
                        self._count("postponed", [delivery])
                if not (deliveries := [d for d in deliveries if d.id not in postponed.delays]):
                    return
            except Exception as error:
                await self._failed(deliveries, error)
                return
            else:
                await self._settle(deliveries, fresh)
                return

    async def _attempt(self, deliveries: Sequence[_Delivery]) -> set[str]:
        async with self._unit_of_work.begin(self.name, [d.id for d in deliveries]) as (tx, fresh):
            batches: dict[Handler[T], list[Envelope]] = {}
            for delivery in deliveries:
                if delivery.id in fresh:
                    handler = self._handlers[delivery.envelope.type]
                    batches.setdefault(handler, []).append(delivery.envelope)
            for handler, envelopes in batches.items():
                await handler(envelopes, tx=tx)
        return fresh

    async def _settle(self, deliveries: Sequence[_Delivery], fresh: set[str]) -> None:
        for delivery in deliveries:
            self._failures.pop(delivery.id, None)
            delivery.settled = True
            for message in delivery.messages:
                # Where this fails it comes again, as a duplicate.
                with contextlib.suppress(NatsError, OSError):
                    await message.ack()
        self._count("handled", [d for d in deliveries if d.id in fresh])
        self._count("duplicate", [d for d in deliveries if d.id not in fresh])

    async def _failed(self, deliveries: list[_Delivery], error: BaseException) -> None:
        if len(deliveries) > 1:
            middle = len(deliveries) // 2
            await self._handle(deliveries[:middle])
            await self._handle(deliveries[middle:])
            return
        (delivery,) = deliveries
        failures = self._failures.pop(delivery.id, 0) + 1
        if delivery.span is not None:
            delivery.span.record_exception(error)
            delivery.span.set_status(StatusCode.ERROR, type(error).__name__)
        kind = delivery.envelope.type
        log.warning(
            "message failed",
            consumer=self.name,
            id=delivery.id,
            type=kind,
            failures=failures,
            error=f"{type(error).__name__}: {error}",
            exc_info=error if failures == 1 else None,
        )
        if failures >= _FAILURES and await self._dead_letter(delivery.messages, kind, error):
            delivery.settled = True
            self._count("dead_lettered", [delivery])
            return
        self._failures[delivery.id] = failures
        while len(self._failures) > _FAILURES_REMEMBERED:
            self._failures.pop(next(iter(self._failures)))
        self._count("retried", [delivery])
        await self._give_back([delivery], self._first_delay * 2 ** min(failures - 1, 4))

    async def _dead_letter(self, messages: Sequence[Msg], type_name: str, error: BaseException) -> bool:
        """Whether the DLQ has it now; if not, the message is to come again."""
        text = f"{type(error).__name__}: {error}"
        try:
            await self._dead_letters.add(messages[0], consumer=self.name, error=text)
        except (NatsError, OSError, TimeoutError) as failure:
            log.warning("dead letter not stored", consumer=self.name, error=str(failure))
            return False
        log.error("dead letter", consumer=self.name, type=type_name, error=text)
        self._metrics.dead_letter(self.name, type_name)
        for message in messages:
            with contextlib.suppress(NatsError, OSError):
                await message.term()
        return True

    async def _unreadable(self, message: Msg, error: Undecodable) -> None:
        type_name = (message.headers or {}).get("ce-type", "")
        if type_name not in self._topology.routes:  # whatever a stranger wrote would be a metric of its own
            type_name = "unknown"
        if await self._dead_letter([message], type_name, error):
            self._metrics.message(type_name, "dead_lettered", 0.0)
        else:
            with contextlib.suppress(NatsError, OSError):
                await message.nak(self._first_delay)

    async def _give_back(self, deliveries: Sequence[_Delivery], delay: float | None = None) -> None:
        for delivery in deliveries:
            delivery.settled = True
            for message in delivery.messages:
                with contextlib.suppress(NatsError, OSError):
                    await message.nak(delay)

    @contextlib.asynccontextmanager
    async def _kept_in_progress(self, deliveries: Sequence[_Delivery]) -> AsyncIterator[None]:
        """Tell the broker that these are in hand, for as long as it takes."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(ACK_WAIT / 3)
                for delivery in deliveries:
                    for message in () if delivery.settled else delivery.messages:
                        with contextlib.suppress(NatsError, OSError):
                            await message.in_progress()

        task = asyncio.create_task(tell(), name=f"{self.name} in progress")
        try:
            yield
        finally:
            task.cancel()

    async def _chores(self) -> None:
        prune_at = monotonic() + random.uniform(0, _PRUNE_INTERVAL)
        while True:
            await asyncio.sleep(_LAG_INTERVAL)
            with contextlib.suppress(NatsError, OSError, TimeoutError):
                if self._nats.connected:
                    info = await self._nats.js.consumer_info(self._consumer.stream, self._consumer.durable)
                    self._metrics.lag(self.name, (info.num_pending or 0) + (info.num_ack_pending or 0))
            if monotonic() >= prune_at:
                prune_at = monotonic() + _PRUNE_INTERVAL
                with contextlib.suppress(Unavailable):
                    await self._unit_of_work.prune()

    def _count(self, outcome: str, deliveries: Sequence[_Delivery]) -> None:
        now = perf_counter()
        totals: dict[str, tuple[int, float]] = {}
        for delivery in deliveries:
            count, seconds = totals.get(delivery.envelope.type, (0, 0.0))
            totals[delivery.envelope.type] = count + 1, max(seconds, now - delivery.began)
        for type_name, (count, seconds) in totals.items():
            self._metrics.message(type_name, outcome, seconds, count)
