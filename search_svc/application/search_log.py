"""What was searched for, counted in memory and written now and then, so that no search waits for it or fails by it."""

from collections.abc import Sequence
from datetime import date, timedelta

from chassis.clock import Clock
from search_svc.application.ports import SearchLog
from search_svc.domain.suggestion import SearchedText, kept

KEPT_DAYS = 30
_TEXTS_A_DAY = 5_000
_ENTRIES = 200_000
_POPULAR = 1_000
# What fewer searches than these asked for is suggested to nobody.
SUGGESTED_FROM = 10


class SearchCounts:
    """Of one process. `popular` are the texts that many searched for and found something by, the most frequent first,
    as of the last `refresh`."""

    def __init__(self, store: SearchLog, clock: Clock):
        self.popular: Sequence[str] = ()
        self._store = store
        self._clock = clock
        self._counts: dict[date, dict[str, SearchedText]] = {}
        self._unwritten: dict[date, set[str]] = {}

    def note(self, text: str, *, found: bool) -> None:
        """Count one search. On top of 5,000 texts a day no new ones are counted."""
        plain, today = kept(text), self._today()
        counts = self._counts.setdefault(today, {})
        if not plain or (plain not in counts and len(counts) >= _TEXTS_A_DAY):
            return
        known = counts.get(plain, SearchedText(plain, 0, 0))
        counts[plain] = SearchedText(plain, known.searches + 1, known.without_hits + (not found))
        self._unwritten.setdefault(today, set()).add(plain)

    async def flush(self) -> None:
        """Write what was counted since the last time. Raises Unavailable; then it stays to be written."""
        today = self._today()
        for day in sorted(self._unwritten):
            texts = self._unwritten.pop(day)
            try:
                await self._store.write(day, {text: self._counts[day][text] for text in texts})
            except BaseException:
                self._unwritten.setdefault(day, set()).update(texts)
                raise
        for day in [day for day in self._counts if day < today and day not in self._unwritten]:
            del self._counts[day]

    async def refresh(self) -> None:
        """Read what is popular. Raises Unavailable."""
        found = await self.top(KEPT_DAYS, without_hits=False, most=_POPULAR)
        self.popular = [
            each.text for each in found if each.searches >= SUGGESTED_FROM and each.without_hits * 2 <= each.searches
        ]

    async def tidy(self) -> None:
        """Forget what is old or too much. Raises Unavailable."""
        await self._store.forget(self._today() - timedelta(days=KEPT_DAYS - 1), _ENTRIES)

    async def top(self, days: int, *, without_hits: bool, most: int) -> Sequence[SearchedText]:
        """Of the last `days`, today among them. Raises Unavailable."""
        since = self._today() - timedelta(days=days - 1)
        return await self._store.read(since, without_hits=without_hits, most=most)

    def _today(self) -> date:
        return self._clock.now().date()
