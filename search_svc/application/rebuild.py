"""Filling a generation of the index from the services that own the data, beside the one that serves.

Every replica writes the new generation, too, before the first source is read. So whatever the owners change afterwards
reaches it as an event, and whatever they changed before is in what they answer; which of both comes first, versions
decide. When all is read it is compared with the owners, what is behind is mended, and then searches read it at once.

One replica at a time drives it, under a lease that each step renews; where it dies another goes on. Each step may be
done twice, and by two at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar

import structlog

from chassis.errors import Aborted, FailedPrecondition, InvalidArgument, PolymartError
from chassis.ids import uuid7
from search_svc.application.parity import Versions, compare_availability, compare_categories, compare_products
from search_svc.application.ports import DocumentRefused, Generations, Index, IndexMissing, Sources
from search_svc.application.projection import apply_availability, apply_categories, apply_products
from search_svc.domain.rebuild import Layout, Rebuild, Step

log = structlog.get_logger(__name__)

T = TypeVar("T")

LEASE_SECONDS = 15.0
_ATTEMPTS = 10
_LAST_WORD = 1.0


class _Overtaken(Exception):
    """Another replica has the lease."""


async def start_rebuild(generations: Generations) -> Rebuild:
    """Begin a rebuild, or join the one that runs: however many begin one at once, there is one.

    Raises IndexMissing while the index is lost: it is being rebuilt anyway. Raises Unavailable.
    """
    while True:
        last = await generations.rebuild()
        if last and last.document.running:
            return last.document
        layout = await generations.layout()
        if not layout.built:
            raise IndexMissing
        wanted = Rebuild(uuid7(), layout.following, started=time.time())
        if await generations.save(wanted, last.revision if last else None):
            return wanted


async def roll_back(name: str, generations: Generations) -> None:
    """Let the old generation serve instead of the one of this name, and keep that; nothing where it does already.

    Raises FailedPrecondition, Aborted, Unavailable.
    """
    layout = await _at_rest(generations)
    serving, spare = (generations.name_of(n) if n is not None else "" for n in (layout.serving, layout.spare))
    if name == spare:
        return
    if name != serving:
        raise Aborted(f"searches read {serving or 'nothing'}, not {name}", reason="CONCURRENT_CHANGE")
    if layout.spare is None:
        raise FailedPrecondition("there is no old index to go back to", reason="NO_OLD_INDEX")
    if not await generations.change(layout, written=layout.written, filled=layout.filled, serving=layout.spare):
        raise Aborted("the indices were changed meanwhile")


async def drop_old(generations: Generations) -> None:
    """Delete all but the generation that serves, and what earlier releases left.

    Raises FailedPrecondition, Aborted, Unavailable.
    """
    layout = await _at_rest(generations)
    if layout.serving is None or not layout.built:
        raise FailedPrecondition("the index that serves isn't complete", reason="INDEX_INCOMPLETE")
    only = {layout.serving}
    if layout.written != only and not await generations.change(
        layout, written=only, filled=only, serving=layout.serving
    ):
        raise Aborted("the indices were changed meanwhile")
    for generation in layout.present - only:
        await generations.delete(generation)
    await generations.delete_earlier()


async def _at_rest(generations: Generations) -> Layout:
    last, layout = await generations.rebuild(), await generations.layout()
    if last and last.document.running:
        raise FailedPrecondition("the index is being rebuilt; wait until it is", reason="REBUILD_RUNNING")
    return layout


async def keep(*, holder: str, generations: Generations, sources: Sources, lease: float = LEASE_SECONDS) -> bool:
    """Do what there is to do for the index, unless another replica does; True if this completed a rebuild.

    A lost or incomplete index is rebuilt without being asked to be. The work in hand is this replica's for `lease`
    seconds from its last sign of life. Raises Unavailable, Aborted.
    """
    await generations.prepare()
    # In this order: what a rebuild that has ended did to the layout is seen.
    last, layout = await generations.rebuild(), await generations.layout()
    running = last is not None and last.document.running
    if layout.built and not running:
        return False
    if not running and layout.spare is not None:
        log.error("the index that serves is lost; the old one takes its place", generation=layout.spare)
        complete = layout.written & layout.filled
        await generations.change(layout, written=complete, filled=complete, serving=layout.spare)
        return False
    if last and running:
        rebuild = last.document
        if rebuild.holder != holder and rebuild.until > time.time():
            return False
    else:
        serving = layout.serving if layout.serving in layout.written else None
        rebuild = Rebuild(uuid7(), serving or layout.following, started=time.time(), healing=True)
    driver = _Driver(holder, generations, sources, lease, rebuild, last.revision if last else None)
    return await driver.run()


class _Driver:
    """One replica's turn at a rebuild."""

    def __init__(
        self,
        holder: str,
        generations: Generations,
        sources: Sources,
        lease: float,
        rebuild: Rebuild,
        revision: tuple[int, int] | None,
    ):
        self._holder = holder
        self._generations = generations
        self._sources = sources
        self._lease = lease
        self._rebuild = rebuild
        self._revision = revision

    async def run(self) -> bool:
        """Go on until it is done, or another's; True if it is done. Raises Unavailable, Aborted."""
        try:
            await self._save()
            log.info("rebuilding the index", generation=self._rebuild.generation, step=self._rebuild.step.name)
            while self._rebuild.running:
                await self._step()
        except _Overtaken:
            return False
        except PolymartError as error:
            with contextlib.suppress(PolymartError, _Overtaken):
                await self._save(trouble=str(error))
            raise
        except asyncio.CancelledError:
            # Another may go on at once.
            self._lease = 0
            with contextlib.suppress(PolymartError, _Overtaken, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await self._save()
            raise
        return True

    async def _step(self) -> None:
        step, generation = self._rebuild.step, self._rebuild.generation
        layout = await self._generations.layout()
        if step is Step.PREPARE:
            await self._prepare(layout)
            return
        if generation not in layout.written:
            log.error("the index that is being filled is lost", generation=generation)
            await self._begin(layout.following, Step.PREPARE)
            return
        if layout.serving is None:
            # Rather a part of it than nothing.
            await self._change(layout, written=layout.written, filled=layout.filled, serving=generation)
            return
        index = self._generations.index(generation, layout.epoch)
        match step:
            case Step.CATEGORIES:
                await self._take_categories(index)
            case Step.AVAILABILITY:
                await self._take_availability(index)
            case Step.PRODUCTS:
                await self._take_products(index)
            case Step.CHECK:
                await self._check(index)
            case Step.SWAP:
                await self._swap(layout)

    async def _prepare(self, layout: Layout) -> None:
        generation = self._rebuild.generation
        await self._generations.create(generation)
        kept = {n for n in layout.written if n == layout.serving}
        # Also where it is written already: not before this has come back does nobody write under the names of before.
        await self._change(
            layout,
            written=kept | {generation},
            filled=kept & layout.filled,
            serving=layout.serving or generation,
        )
        for stray in layout.present - {generation, layout.serving}:
            await self._generations.delete(stray)
        expected = max([await self._generations.size(n) for n in kept - {generation}], default=0)
        await self._save(step=Step.CATEGORIES, expected=expected)

    async def _take_categories(self, index: Index) -> None:
        await self._save(current=0)
        async for categories in self._sources.categories():
            await self._take(categories, lambda items: apply_categories(items, index=index))
        await self._done(Step.AVAILABILITY)

    async def _take_availability(self, index: Index) -> None:
        await self._save(current=0)
        async for news in self._sources.availability():
            await self._take(list(news.items()), lambda items: apply_availability(items, index=index))
        await self._done(Step.PRODUCTS)

    async def _take_products(self, index: Index) -> None:
        """Last, so that they find their categories and the availability of their SKUs when they come."""
        try:
            async for products, token in self._sources.products(self._rebuild.token):
                await self._take(products, lambda items: apply_products(items, index=index), token=token)
        except InvalidArgument:
            # Of another release of the catalog, perhaps.
            await self._save(current=0, token="")
            return
        await self._done(Step.CHECK, token="")

    async def _take(self, items: Sequence[T], apply: Callable[[Sequence[T]], Awaitable[None]], **changes: Any) -> None:
        refused = await _apply(items, apply)
        left_out = self._rebuild.left_out + len(refused)
        await self._save(current=self._rebuild.current + len(items), left_out=left_out, **changes)

    async def _done(self, following: Step, **changes: Any) -> None:
        await self._save(step=following, read=self._rebuild.read + self._rebuild.current, current=0, **changes)

    async def _check(self, index: Index) -> None:
        await self._save(current=0, repaired=0, left_out=0)
        owners, found = sha256(), sha256()

        async def compared(
            kind: str,
            news: Mapping[str, T],
            compare: Callable[[Mapping[str, T], Index], Awaitable[Versions]],
            apply: Callable[[Sequence[tuple[str, T]]], Awaitable[None]],
        ) -> None:
            versions, repaired, refused = await _mended(news, lambda behind: compare(behind, index), apply)
            for key, (wanted, had) in sorted(versions.items()):
                owners.update(f"{kind} {key} {wanted}\n".encode())
                found.update(f"{kind} {key} {had}\n".encode())
            await self._save(
                current=self._rebuild.current + len(news),
                repaired=self._rebuild.repaired + repaired,
                left_out=self._rebuild.left_out + refused,
            )

        async for categories in self._sources.categories():
            by_id = {category.category_id: category for category in categories}
            await compared("category", by_id, compare_categories, lambda x: apply_categories(_news(x), index=index))
        async for availability in self._sources.availability():
            await compared("sku", availability, compare_availability, lambda x: apply_availability(x, index=index))
        async for products, _ in self._sources.products():
            by_id_ = {product.product_id: product for product in products}
            await compared("product", by_id_, compare_products, lambda x: apply_products(_news(x), index=index))
        if owners.digest() != found.digest():
            log.error("the index differs from its sources after all; they are read again")
            await self._begin(self._rebuild.generation, Step.CATEGORIES)
            return
        await self._done(Step.SWAP, digest=found.hexdigest())

    async def _swap(self, layout: Layout) -> None:
        generation = self._rebuild.generation
        if layout.serving != generation or generation not in layout.filled:
            await self._generations.refresh(generation)
            # What serves till now is kept, if it is worth to go back to.
            complete = (layout.written & layout.filled) | {generation}
            await self._change(layout, written=complete, filled=complete, serving=generation)
            layout = await self._generations.layout()
        for stray in layout.present - layout.written:
            await self._generations.delete(stray)
        await self._save(step=Step.DONE, ended=time.time())

    async def _begin(self, generation: int, step: Step) -> None:
        again: dict[str, Any] = {"token": "", "read": 0, "current": 0, "repaired": 0, "left_out": 0, "digest": ""}
        await self._save(generation=generation, step=step, **again)

    async def _change(self, layout: Layout, *, written: Set[int], filled: Set[int], serving: int) -> None:
        if not await self._generations.change(layout, written=written, filled=filled, serving=serving):
            raise Aborted("the indices were changed meanwhile")

    async def _save(self, *, trouble: str = "", **changes: Any) -> None:
        """Record how far it is, and keep the lease. Raises _Overtaken if it isn't ours any more."""
        self._rebuild = replace(
            self._rebuild, trouble=trouble, holder=self._holder, until=time.time() + self._lease, **changes
        )
        self._revision = await self._generations.save(self._rebuild, self._revision)
        if self._revision is None:
            raise _Overtaken


async def _mended(
    news: Mapping[str, T],
    compare: Callable[[Mapping[str, T]], Awaitable[Versions]],
    apply: Callable[[Sequence[tuple[str, T]]], Awaitable[None]],
) -> tuple[Versions, int, int]:
    """The versions of the owners and of the index once the news that it was behind of is applied, how many those were,
    and how many of them the engine refuses; those have no versions."""
    versions = dict(await compare(news))
    behind = _behind(versions)
    repaired, refused = len(behind), 0
    for _ in range(_ATTEMPTS):
        if not behind:
            break
        for key, _news in await _apply([(key, news[key]) for key in behind], apply):
            refused += 1
            behind.remove(key)
            del versions[key]
        versions |= await compare({key: news[key] for key in behind})
        behind = _behind(versions)
    return versions, repaired - refused, refused


def _behind(versions: Versions) -> list[str]:
    return sorted(key for key, (wanted, had) in versions.items() if wanted != had)


def _news(items: Sequence[tuple[str, T]]) -> list[T]:
    return [news for _, news in items]


async def _apply(items: Sequence[T], apply: Callable[[Sequence[T]], Awaitable[None]]) -> list[T]:
    """What the engine won't take. It is left out, and said: one bad product must not keep the shop without search."""
    try:
        await apply(items)
    except DocumentRefused as error:
        if len(items) == 1:
            log.error("left out of the index", item=str(items[0])[:200], error=str(error))
            return list(items)
        middle = len(items) // 2
        return [*await _apply(items[:middle], apply), *await _apply(items[middle:], apply)]
    return []
