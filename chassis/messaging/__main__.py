"""`python -m chassis.messaging migrate` makes or updates every stream and durable consumer of the topology."""

from chassis.config import ServiceConfig
from chassis.errors import Unavailable
from chassis.messaging.nats import Nats, ensure_topology
from chassis.messaging.subscription import OUTAGES
from chassis.service import main

NAME = "chassis.messaging"


async def migrate(config: ServiceConfig) -> None:
    """Raises Unavailable where no broker with JetStream can be reached."""
    nats = Nats(config.nats_url, NAME, replicas=config.nats_replicas)
    await nats.open()
    try:
        await nats.ready()
        await ensure_topology(nats)
    except OUTAGES as error:
        raise Unavailable(f"NATS doesn't keep the streams: {error or type(error).__name__}") from error
    finally:
        await nats.close()


if __name__ == "__main__":
    main(NAME, ServiceConfig, migrate=migrate)
