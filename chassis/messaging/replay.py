"""Reading a stream again from some time on, beside its durable consumers: for projections that were lost."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from chassis.errors import Unavailable
from chassis.messaging.envelope import Envelope, Undecodable
from chassis.messaging.nats import Nats
from chassis.messaging.topology import TOPOLOGY, Consumer, Topology

log = structlog.get_logger(__name__)

_BATCH = 500
_FETCH_TIMEOUT = 2.0
_KEPT_SECONDS = 30.0


async def replay(
    nats: Nats, consumer: Consumer, since: datetime, *, topology: Topology = TOPOLOGY
) -> AsyncIterator[Sequence[Envelope]]:
    """All that `consumer` takes and the stream stored from `since` until now, in order, up to 500 at a time.

    The durable consumer is left where it is. What can't be read is left out, and said. Raises Unavailable where the
    broker can't be reached or anything was missed: then all of it is to be read again.
    """
    with _translated():
        try:
            made = await nats.js.add_consumer(
                consumer.stream,
                ConsumerConfig(
                    deliver_policy=DeliverPolicy.BY_START_TIME,
                    opt_start_time=since,
                    filter_subjects=topology.filters(consumer),
                    ack_policy=AckPolicy.NONE,
                    inactive_threshold=_KEPT_SECONDS,
                    mem_storage=True,
                    num_replicas=1,
                ),
            )
        except NotFoundError:
            log.warning("there is no stream to read again", stream=consumer.stream)
            return
        pull = await nats.js.pull_subscribe_bind(made.name, stream=consumer.stream)
    try:
        left, read = made.num_pending or 0, 0
        while left:
            messages = await _fetch(pull)
            for message in messages:
                read += 1
                if message.metadata.sequence.consumer != read:
                    raise Unavailable(f"messages of {consumer.stream} got lost on their way")
                left = message.metadata.num_pending
            if messages:
                yield list(_decoded(messages))
            else:
                # What was too old by now is gone from the stream.
                with _translated():
                    left = (await pull.consumer_info()).num_pending or 0
    finally:
        with contextlib.suppress(NatsError, OSError):
            await pull.unsubscribe()
            await nats.js.delete_consumer(consumer.stream, made.name)


async def _fetch(pull: JetStreamContext.PullSubscription) -> list[Msg]:
    with _translated():
        try:
            return await pull.fetch(_BATCH, timeout=_FETCH_TIMEOUT)
        except TimeoutError:
            return []


def _decoded(messages: Sequence[Msg]) -> Iterator[Envelope]:
    for message in messages:
        try:
            yield Envelope.decode(message.subject, message.headers, message.data)
        except Undecodable as error:
            log.error("left out of the replay", error=str(error))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NotFoundError:
        raise
    except (NatsError, OSError) as error:
        raise Unavailable(f"NATS can't be read: {error or type(error).__name__}") from error
