"""The delivery log in a NATS key-value bucket."""

import json
from dataclasses import asdict
from datetime import datetime

from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, StorageType
from nats.js.errors import APIError, BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from chassis.errors import Unavailable
from chassis.messaging.nats import Nats
from chassis.messaging.subscription import OUTAGES
from chassis.messaging.topology import INBOX_RETENTION
from email_svc.application.ports import Overtaken
from email_svc.domain.delivery import Delivery, State

BUCKET = "email_deliveries"
_STREAM, _PREFIX = f"KV_{BUCKET}", f"$KV.{BUCKET}."
_FETCHED = 500
_STREAM_EXISTS = 10058
# Not what is wrong with a key or a value, which no waiting mends.
_OUTAGES = (*OUTAGES, APIError)


class NatsDeliveries:
    """Deliveries (application.ports); revisions are the bucket's."""

    def __init__(self, nats: Nats):
        self._nats = nats
        self._bucket: KeyValue | None = None

    async def get(self, notification_id: str) -> tuple[Delivery, int] | None:
        try:
            entry = await (await self._open()).get(notification_id)
        except KeyNotFoundError:
            return None
        except _OUTAGES as error:
            raise self._unavailable(error) from error
        assert entry.value is not None
        assert entry.revision is not None
        return _delivery(entry.value), entry.revision

    async def put(self, notification_id: str, delivery: Delivery, revision: int) -> int:
        try:
            return await (await self._open()).update(notification_id, _data(delivery), last=revision)
        except KeyWrongLastSequenceError as error:
            raise Overtaken(notification_id) from error
        except _OUTAGES as error:
            raise self._unavailable(error) from error

    async def everything(self) -> dict[str, Delivery]:
        """The whole log by notification, for auditors. Raises Unavailable."""
        found: dict[str, Delivery] = {}
        try:
            await self._open()
            # A watcher of the bucket may say that there is nothing more before it has begun.
            latest = ConsumerConfig(
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=60.0,
                mem_storage=True,
            )
            consumer = await self._nats.js.pull_subscribe(f"{_PREFIX}>", stream=_STREAM, config=latest)
            try:
                pending = (await consumer.consumer_info()).num_pending
                while pending:
                    for message in await consumer.fetch(min(_FETCHED, pending)):
                        found[message.subject.removeprefix(_PREFIX)] = _delivery(message.data)
                        pending = message.metadata.num_pending
            finally:
                await consumer.unsubscribe()
        except _OUTAGES as error:
            raise self._unavailable(error) from error
        return found

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            await self._nats.ready()
            self._bucket = await self._nats.js.key_value(BUCKET)
        return self._bucket

    def _unavailable(self, error: Exception) -> Unavailable:
        self._bucket = None  # its connection may be another now
        return _unavailable(error)


async def ensure_bucket(nats: Nats) -> None:
    """Make the bucket where it is missing. Raises Unavailable."""
    await nats.ready()
    config = KeyValueConfig(
        bucket=BUCKET,
        description="What became of each notification's delivery by e-mail",
        history=1,
        # As long as a message may come again out of its stream or the dead letters.
        ttl=INBOX_RETENTION.total_seconds(),
        storage=StorageType.FILE,
        replicas=nats.replicas,
    )
    try:
        await nats.js.create_key_value(config)
    except APIError as error:
        if error.err_code != _STREAM_EXISTS:  # it may be there with more replicas
            raise
    except _OUTAGES as error:
        raise _unavailable(error) from error


def _data(delivery: Delivery) -> bytes:
    fields = {**asdict(delivery), "state": delivery.state.value, "until": delivery.until.isoformat()}
    return json.dumps(fields).encode()


def _delivery(data: bytes) -> Delivery:
    fields = json.loads(data)
    fields["state"], fields["until"] = State(fields["state"]), datetime.fromisoformat(fields["until"])
    return Delivery(**fields)


def _unavailable(error: Exception) -> Unavailable:
    if isinstance(error, BucketNotFoundError):
        return Unavailable(f"NATS has no bucket {BUCKET}; run `python -m email_svc migrate`")
    return Unavailable(f"NATS doesn't keep the delivery log: {error or type(error).__name__}")
