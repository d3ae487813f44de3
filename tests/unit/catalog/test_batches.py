import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_svc.entrypoints.batches import batches


async def counted(count: int, taken: list[int]) -> AsyncIterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


@given(st.integers(0, 30), st.integers(1, 7), st.integers(0, 3))
async def test_everything_comes_in_order_and_no_batch_is_empty_or_too_large(
    count: int, size: int, patience: int
) -> None:
    seen: list[int] = []
    async for batch in batches(counted(count, []), size, 1_000, lambda _: 1):
        assert 1 <= len(batch) <= size
        seen += batch
        for _ in range(patience):
            await asyncio.sleep(0)
    assert seen == list(range(count))


async def test_a_batch_holds_what_came_while_the_one_before_was_worked_on() -> None:
    sizes = []
    async for batch in batches(counted(100, []), 30, 1_000, lambda _: 1):
        sizes.append(len(batch))
        for _ in range(200):
            await asyncio.sleep(0)
    assert max(sizes) == 30
    assert len(sizes) <= 5


async def test_the_sender_waits_while_nobody_takes() -> None:
    taken: list[int] = []
    source = batches(counted(1_000, taken), 10, 1_000, lambda _: 1)
    first = await anext(source)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(taken) <= len(first) + 10 + 1
    await source.aclose()


async def test_a_sender_that_pauses_gets_what_it_sent_answered() -> None:
    answered = asyncio.Event()

    async def hesitant() -> AsyncIterator[int]:
        yield 1
        await answered.wait()
        yield 2

    source = batches(hesitant(), 10, 1_000, lambda _: 1)
    assert await anext(source) == [1]
    answered.set()
    assert [batch async for batch in source] == [[2]]


async def test_what_ends_the_stream_is_raised_after_what_came_before() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise ConnectionError("gone")

    source = batches(broken(), 1, 1_000, lambda _: 1)
    assert [await anext(source), await anext(source)] == [[1], [2]]
    with pytest.raises(ConnectionError):
        await anext(source)


async def test_a_batch_and_what_waits_have_a_limited_number_of_bytes() -> None:
    taken: list[int] = []
    lengths = [3, 3, 3, 3, 3, 50, 3, 3]
    seen: list[list[int]] = []
    async for batch in batches(counted(len(lengths), taken), 100, 10, lambda number: lengths[number]):
        seen.append(batch)
        for _ in range(100):
            await asyncio.sleep(0)
        # What waits, and one more that the sender gave and nobody has taken.
        assert len(taken) - sum(map(len, seen)) <= 3 + 1
    assert [number for batch in seen for number in batch] == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[number] for number in batch) <= 10 for batch in seen)
    assert [5] in seen
