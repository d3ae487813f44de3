"""How far durable consumers are."""

from nats.js.errors import NotFoundError

from chassis.messaging.nats import Nats
from chassis.messaging.topology import TOPOLOGY, Consumer


async def in_hand(nats: Nats, *consumers: Consumer) -> int:
    """Messages that the consumers have yet to acknowledge, of all that the broker acknowledged to publishers.

    A consumer's own count trails the publisher's acknowledgement by a moment; where it is 0, the stream is asked too.
    """
    count = 0
    for consumer in consumers:
        info = await nats.js.consumer_info(consumer.stream, consumer.durable)
        delivered = (info.delivered and info.delivered.stream_seq) or 0
        count += (info.num_pending or 0) + (info.num_ack_pending or 0) or int(delivered < await _last(nats, consumer))
    return count


async def _last(nats: Nats, consumer: Consumer) -> int:
    """The place in its stream of the last message that is for the consumer, 0 if there is none."""
    last = 0
    for subject in TOPOLOGY.filters(consumer):
        try:
            last = max(last, (await nats.js.get_last_msg(consumer.stream, subject)).seq or 0)
        except NotFoundError:
            continue
    return last
