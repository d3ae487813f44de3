"""Order events in any order, any number of times, through any number of replicas that come and go, give the same
popularity."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.clock import ManualClock
from chassis.errors import Aborted
from chassis.money import Money
from search_svc.adapters.memory_index import MemoryIndex
from search_svc.adapters.memory_sales import MemorySales
from search_svc.application.popularity import Window, keep_popularity, milliseconds, trending_products, units_by_product
from search_svc.application.ports import IndexMissing
from search_svc.application.projection import apply_products, record_sales
from search_svc.domain.popularity import Sale, Sold, popularity_of
from search_svc.domain.product import Product, Variant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 24 * 3600 * 1000
WEEK = timedelta(days=7)
PRODUCTS = ("P", "Q", "R", "S")
# Of S nobody says more than its SKU, and R is never told of by the catalog.
TOLD = tuple(Product(key, 1, variants=(Variant(f"sku {key}", Money.parse("GBP", "1.00")),)) for key in "PQS")

lines = st.builds(
    lambda product_id, units: Sold("", "sku S", units) if product_id == "S" else Sold(product_id, "", units),
    st.sampled_from(PRODUCTS),
    st.integers(1, 50),
)
# From within the window, from before it, and a little ahead.
times = st.integers(milliseconds(NOW) - 9 * DAY, milliseconds(NOW) + 60_000)


@st.composite
def orders(draw: st.DrawFn) -> list[Sale]:
    """Events of a few orders: a confirmation, a cancellation after it, or either alone."""
    events: list[Sale] = []
    for number in range(draw(st.integers(1, 8))):
        order_id, time = f"order {number}", draw(times)
        if confirmed := draw(st.booleans()):
            sold = draw(st.lists(lines, min_size=1, max_size=3).map(tuple))
            events.append(Sale(order_id, confirmed=time, lines=sold))
        if not confirmed or draw(st.integers(0, 3)) == 0:
            events.append(Sale(order_id, cancelled=time + draw(st.integers(0, DAY))))
    return events


def expected(events: Sequence[Sale], since: int) -> dict[str, int]:
    cancelled = {event.order_id for event in events if event.cancelled}
    units = Counter[str]()
    for event in events:
        if event.confirmed >= since and event.order_id not in cancelled:
            for line in event.lines:
                units[line.product_id or "S"] += line.units
    return dict(units)


@dataclass
class History:
    """The stream, which has all of it from the start."""

    events: Sequence[Sale]

    async def sales(self, since: int) -> AsyncIterator[Sequence[Sale]]:
        kept = [event for event in self.events if event.time >= since]
        for start in range(0, len(kept), 3):
            await asyncio.sleep(0)
            yield kept[start : start + 3]


class Shown:
    def __init__(self, index: MemoryIndex):
        self._index = index

    async def shown(self, product_ids: Sequence[str], category: str) -> Mapping[str, Product]:
        return {key: product for key, product in self._index.shown().items() if key in product_ids}


@given(orders(), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_any_order_any_repetition_any_loss_any_replica_ends_with_the_same_sums(events: list[Sale], seed: int) -> None:
    chance = random.Random(seed)
    deliveries = events + chance.choices(events, k=chance.randint(0, len(events)))
    chance.shuffle(deliveries)
    clock = ManualClock(NOW)
    index = MemoryIndex(lambda: chance.randint(0, 2))
    sales = MemorySales(index, lambda: chance.randint(0, 2), lambda: clock.now().timestamp())
    window, history = Window(WEEK, clock), History(events)

    async def deliver(batch: Sequence[Sale]) -> None:
        """As a subscription does: a conflict too many and it tries again."""
        while True:
            try:
                return await record_sales(batch, orders=sales.orders, since=window.start)
            except Aborted:
                continue

    async def consume() -> None:
        while deliveries:
            batch = [deliveries.pop() for _ in range(min(len(deliveries), chance.randint(1, 3)))]
            await deliver(batch)

    async def keep(holder: str, passes: int) -> Mapping[str, float] | None:
        shown: Mapping[str, float] | None = None
        for _ in range(passes):
            try:
                shown = await keep_popularity(
                    shown, holder=holder, sales=sales, history=history, index=index, window=window
                )
            except (Aborted, IndexMissing):
                shown = None
            if chance.randint(0, 5) == 0:
                shown = None  # killed, and started again
            clock.advance(timedelta(seconds=chance.choice([1, 20])))
        return shown

    async def catalog() -> None:
        for product in chance.sample(TOLD, len(TOLD)):
            while True:
                try:
                    await apply_products([product], index=index)
                    break
                except Aborted:
                    continue

    async def lose() -> None:
        for _ in range(chance.randint(0, 2)):
            for _ in range(chance.randint(0, 40)):
                await asyncio.sleep(0)
            sales.lose()

    async def run() -> None:
        await asyncio.gather(consume(), consume(), keep("A", 3), keep("B", 3), catalog(), lose())
        clock.advance(timedelta(seconds=20))
        # The second pass looks at what changed alone, and the third compares everything.
        shown: Mapping[str, float] | None = None
        for compare_all in (True, False, True):
            shown = await keep_popularity(
                None if compare_all else shown, holder="C", sales=sales, history=history, index=index, window=window
            )
            clock.advance(timedelta(seconds=1))
        clock.advance(timedelta(seconds=-1))
        wanted = expected(events, window.start)
        assert await units_by_product(await sales.units(window.start), index=index) == wanted
        recorded = {key: r.document.popularity.value for key, r in index.popularity.documents.items()}
        assert {key: value for key, value in recorded.items() if value} == {
            key: popularity_of(units) for key, units in wanted.items()
        }
        for product in TOLD:
            stored = index.shown()[product.product_id]
            assert stored.popularity.value == popularity_of(wanted.get(product.product_id, 0))
        ranking = [key for key in sorted(wanted, key=lambda key: (-wanted[key], key)) if key != "R"]
        found, after = [], None
        while True:
            page = await trending_products(
                window.start, size=1, after=after, sales=sales, index=index, products=Shown(index)
            )
            found += [(product.product_id, units) for product, units in page.products]
            if not page.more:
                break
            after = found[-1][1], found[-1][0]
        assert found == [(key, wanted[key]) for key in ranking]
        # Once more: nothing is written.
        before = index.products.writes, index.popularity.writes, sales.orders.writes
        await keep_popularity(None, holder="C", sales=sales, history=history, index=index, window=window)
        await deliver(events)
        assert (index.products.writes, index.popularity.writes, sales.orders.writes) == before

    asyncio.run(run())


@given(st.lists(st.sampled_from([1, 2, 3]), min_size=1), st.data())
def test_what_is_known_of_an_order_depends_on_no_order_and_no_repetition(kinds: list[int], data: st.DataObject) -> None:
    def news(kind: int) -> Sale:
        time = data.draw(st.integers(1, 9))
        return Sale("o", cancelled=time) if kind == 3 else Sale("o", confirmed=time, lines=(Sold("P", "", time),))

    events = [news(kind) for kind in kinds]

    def folded(events: Sequence[Sale]) -> Sale:
        known = events[0]
        for event in events[1:]:
            known = known.updated_by(event)
        return known

    shuffled = data.draw(st.permutations(events + events))
    assert folded(shuffled) == folded(events)
    assert folded(events).confirmed == min((e.confirmed for e in events if e.confirmed), default=0)


def test_popularity_moves_in_steps_and_never_against_the_units() -> None:
    values = [popularity_of(units) for units in range(5_000)]
    assert values[:8] == [0, 1, 1.5, 2, 2.25, 2.5, 2.75, 3]
    assert values == sorted(values)
    assert len(set(values[100:])) < 25


async def test_sales_slide_out_of_the_window_and_their_orders_are_forgotten() -> None:
    clock, index = ManualClock(NOW), MemoryIndex()
    sales, window = MemorySales(index), Window(WEEK, clock)
    sale = Sale("o", confirmed=milliseconds(NOW), lines=(Sold("P", "", 3),))
    await apply_products([TOLD[0]], index=index)

    async def kept(shown: Mapping[str, float] | None) -> Mapping[str, float] | None:
        return await keep_popularity(
            shown, holder="A", sales=sales, history=History([sale]), index=index, window=window
        )

    shown = await kept(None)
    assert (shown, index.shown()["P"].popularity.value) == ({"P": 2.0}, 2.0)
    clock.advance(WEEK)
    assert await kept(shown) == {"P": 2.0}
    clock.advance(timedelta(milliseconds=1))
    assert await kept(shown) == {}
    assert (index.shown()["P"].popularity.value, sales.orders.documents) == (0.0, {})
    # It comes once more, too late.
    await record_sales([sale], orders=sales.orders, since=window.start)
    assert sales.orders.documents == {}


async def test_a_replica_broken_off_between_a_record_and_its_product_is_made_good_by_the_next() -> None:
    clock, index = ManualClock(NOW), MemoryIndex()
    sales, window = MemorySales(index), Window(WEEK, clock)
    history = History([Sale("o", confirmed=milliseconds(NOW), lines=(Sold("P", "", 3),))])
    await apply_products([TOLD[0]], index=index)
    before = dict(index.products.documents)
    for _ in range(2):
        await keep_popularity(None, holder="A", sales=sales, history=history, index=index, window=window)
        assert index.shown()["P"].popularity.value == 2.0
        index.products.documents = before  # as if it had never come so far


async def test_what_a_faster_clock_recorded_is_overtaken_once_time_has_passed_it() -> None:
    index, fast, slow = MemoryIndex(), ManualClock(NOW + timedelta(seconds=30)), ManualClock(NOW)
    sales, history = MemorySales(index, clock=lambda: slow.now().timestamp()), History([])
    sold = Sale("o", confirmed=milliseconds(NOW), lines=(Sold("P", "", 3),))
    await sales.prepare()

    async def kept(shown: Mapping[str, float] | None, holder: str, clock: ManualClock) -> Mapping[str, float] | None:
        return await keep_popularity(
            shown, holder=holder, sales=sales, history=history, index=index, window=Window(WEEK, clock)
        )

    await record_sales([sold], orders=sales.orders, since=0)
    await kept(None, "A", fast)
    await record_sales([Sale("o", cancelled=milliseconds(NOW))], orders=sales.orders, since=0)
    slow.advance(timedelta(seconds=20))
    shown = await kept(None, "B", slow)
    assert shown == {"P": 2.0}
    slow.advance(timedelta(seconds=20))
    assert await kept(shown, "B", slow) == {}
    assert index.popularity.documents["P"].document.popularity.value == 0.0


async def test_what_comes_after_the_last_computation_shows_what_it_sold() -> None:
    index, clock = MemoryIndex(), ManualClock(NOW)
    sales, window = MemorySales(index), Window(WEEK, clock)
    history = History([Sale("o", confirmed=milliseconds(NOW), lines=(Sold("P", "", 3),))])
    await keep_popularity(None, holder="A", sales=sales, history=history, index=index, window=window)
    await apply_products([TOLD[0]], index=index)
    assert index.shown()["P"].popularity.value == 2.0


async def test_orders_lost_while_they_are_read_again_are_read_from_the_start() -> None:
    index, clock = MemoryIndex(), ManualClock(NOW)
    sales, window = MemorySales(index), Window(WEEK, clock)
    events = [Sale(f"{n}", confirmed=milliseconds(NOW), lines=(Sold("P", "", 1),)) for n in range(9)]

    class LostMeanwhile(History):
        async def sales(self, since: int) -> AsyncIterator[Sequence[Sale]]:
            yield self.events[:5]
            # Another replica is faster to make the place again.
            sales.lose()
            await sales.prepare()
            yield self.events[5:]

    broken = await keep_popularity(
        None, holder="A", sales=sales, history=LostMeanwhile(events), index=index, window=window
    )
    assert broken is None
    await keep_popularity(None, holder="B", sales=sales, history=History(events), index=index, window=window)
    assert (await sales.units(0)).by_product == {"P": 9}


async def test_who_remembers_what_it_showed_forgets_that_with_the_engine() -> None:
    index, clock = MemoryIndex(), ManualClock(NOW)
    sales, window = MemorySales(index), Window(WEEK, clock)
    history = History([Sale("o", confirmed=milliseconds(NOW), lines=(Sold("P", "", 3),))])
    shown = await keep_popularity(None, holder="A", sales=sales, history=history, index=index, window=window)
    sales.lose()
    index.popularity.documents.clear()
    await sales.prepare()
    await apply_products([TOLD[0]], index=index)
    await keep_popularity(shown, holder="A", sales=sales, history=history, index=index, window=window)
    assert index.shown()["P"].popularity.value == 2.0
