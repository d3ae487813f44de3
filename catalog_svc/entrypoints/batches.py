"""A stream taken up in batches, as large as what came while the batch before was worked on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class _End(Enum):
    END = 0


async def batches(items: AsyncIterator[T], size: int) -> AsyncGenerator[list[T], None]:
    """All `items` in order: what has come by now, at least one and at most `size`; no more than `size` are waiting,
    then the sender has to. Raises what `items` raises, after what came before."""
    queue: asyncio.Queue[T | _End] = asyncio.Queue(size)

    async def read() -> None:
        async for item in items:
            await queue.put(item)

    def ended(_: object) -> None:
        # Whoever waits for an empty queue is woken; a full one is emptied first anyway.
        if not queue.full():
            queue.put_nowait(_End.END)

    reader = asyncio.create_task(read())
    reader.add_done_callback(ended)
    try:
        while not (reader.done() and queue.empty()):
            batch: list[T] = []
            item = await queue.get()
            while not isinstance(item, _End):
                batch.append(item)
                if queue.empty() or len(batch) == size:
                    break
                item = queue.get_nowait()
            if batch:
                yield batch
        reader.result()
    finally:
        reader.cancel()
