"""A process listens for hints while somebody watches, once for all and whatever becomes of its connection."""

import asyncio
import contextlib
from collections.abc import Collection
from functools import partial

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from chassis.messaging.hints import NatsHints, last_token
from chassis.messaging.nats import Nats
from tests.conftest import until

SUBJECT = "hints.of.nobody"


class Watchers:
    def __init__(self) -> None:
        self.idle = True
        self.heard: list[str] = []

    def changed(self, keys: Collection[str]) -> None:
        self.heard.extend(keys)


async def test_hints_come_while_somebody_watches_and_nobody_listens_after(fresh_nats: Nats) -> None:
    watch = Watchers()
    hints = NatsHints(fresh_nats, f"{SUBJECT}.*", watch, last_token)
    running = asyncio.create_task(hints.run())

    async def listens() -> bool:
        try:
            await fresh_nats.client.request(f"{SUBJECT}.probe", b"", timeout=0.1)
        except NoRespondersError:
            return False
        except TimeoutError:
            return True
        raise AssertionError("hints aren't answered")

    assert not await listens()
    watch.idle = False
    await until(listens)
    watch.heard.clear()
    for name in ("a", "b", "c"):
        await fresh_nats.client.publish(f"{SUBJECT}.{name}", b"")
    await until(lambda: watch.heard == ["a", "b", "c"])
    watch.idle = True

    async def silent() -> bool:
        return not await listens()

    await until(silent)
    watch.idle = False
    await until(listens)
    await hints.stop()
    await asyncio.wait_for(running, 5)
    assert not await listens()


async def test_a_client_that_the_broker_closed_for_good_takes_no_hints_along(fresh_nats: Nats) -> None:
    watch = Watchers()
    watch.idle = False
    hints = NatsHints(fresh_nats, f"{SUBJECT}.*", watch, last_token)
    running = asyncio.create_task(hints.run())

    async def heard(name: str) -> bool:
        with contextlib.suppress(NatsError):  # while no client is connected
            await fresh_nats.client.publish(f"{SUBJECT}.{name}", b"")
        return name in watch.heard

    for name in ("a", "b"):
        await until(partial(heard, name))
        client = fresh_nats.client
        # The client counts the body alone, the broker the headers as well.
        await client.publish("anything", b"x" * client.max_payload, headers={"a": "b"})
        await until(lambda client=client: client.is_closed)
    await until(partial(heard, "c"))
    await hints.stop()
    await asyncio.wait_for(running, 5)
