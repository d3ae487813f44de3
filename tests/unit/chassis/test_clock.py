import asyncio

from chassis.clock import rest


async def test_a_rest_ends_with_its_time_or_its_event() -> None:
    event = asyncio.Event()
    await rest(event, 0.01)
    await rest(event, -1)
    assert not event.is_set()
    waiting = asyncio.create_task(rest(event, 3_600))
    await asyncio.sleep(0)
    event.set()
    async with asyncio.timeout(10):
        await waiting
        await rest(event, 3_600)
