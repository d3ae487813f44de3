"""A stream taken up in batches, as large as what came while the batch before was worked on."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")


async def batches(
    items: AsyncIterator[T], size: int, most_bytes: int, bytes_of: Callable[[T], int]
) -> AsyncGenerator[list[T], None]:
    """All `items` in order: what has come by now, at least one, at most `size`, and more than one only if they have
    `most_bytes` together at most. No more than that are waiting, then the sender has to. Raises what `items` raises,
    after what came before."""
    waiting: deque[T] = deque()
    held = 0
    came, went = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        nonlocal held
        async for item in items:
            length = bytes_of(item)
            while waiting and (len(waiting) == size or held + length > most_bytes):
                went.clear()
                await went.wait()
            waiting.append(item)
            held += length
            came.set()

    reader = asyncio.create_task(read())
    reader.add_done_callback(lambda _: came.set())
    try:
        while waiting or not reader.done():
            if waiting:
                batch, held = list(waiting), 0
                waiting.clear()
                went.set()
                yield batch
            else:
                came.clear()
                await came.wait()
        reader.result()
    finally:
        reader.cancel()
