"""`python -m chassis.messaging migrate`, as a cluster runs it for every release."""

import asyncio
import os
import sys

from chassis.messaging.nats import Nats
from chassis.messaging.topology import TOPOLOGY
from tests.conftest import NatsServer, until


async def test_it_waits_for_the_broker_and_makes_every_stream_and_consumer_as_often_as_asked(
    own_nats: NatsServer,
) -> None:
    own_nats.kill()
    for attempt in range(2):
        job = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chassis.messaging", "migrate", "--wait"),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "POLYMART_NATS_URL": own_nats.url},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            if attempt == 0:
                assert job.stderr is not None
                assert b"NATS can't be reached" in await asyncio.wait_for(job.stderr.readline(), 20)
                own_nats.start()
            _, err = await asyncio.wait_for(job.communicate(), 30)
            assert job.returncode == 0, err.decode()
        finally:
            if job.returncode is None:
                job.kill()
    nats = Nats(own_nats.url, "test")
    await nats.open()
    try:
        await until(lambda: nats.connected)
        streams = {str(stream.config.name) for stream in await nats.js.streams_info()}
        assert streams == {stream.name for stream in TOPOLOGY.streams}
        made = [info.name for name in streams for info in await nats.js.consumers_info(name)]
        assert sorted(made) == sorted(consumer.durable for consumer in TOPOLOGY.consumers)
    finally:
        await nats.close()
