"""The rebuild of the index, and which generations of it there are.

A generation is one set of indices (products, SKUs, categories) that is filled and swapped as a whole; it has a number.
"""

from collections.abc import Set
from dataclasses import dataclass
from enum import IntEnum


class Step(IntEnum):
    """What a rebuild is at."""

    PREPARE = 1
    CATEGORIES = 2
    AVAILABILITY = 3
    PRODUCTS = 4
    CHECK = 5
    SWAP = 6
    DONE = 7


@dataclass(frozen=True, slots=True)
class Layout:
    """Which generations there are at one moment.

    `epoch` is another after every change of the rest. `written`: every replica writes them all, and each is whole.
    `filled`: what is in it is all that its sources have. `serving`: the one that searches read. `present`: all of which
    anything is there.
    """

    epoch: str
    present: Set[int] = frozenset()
    written: Set[int] = frozenset()
    filled: Set[int] = frozenset()
    serving: int | None = None

    @property
    def built(self) -> bool:
        """Whether searches read all that there is."""
        return self.serving in self.written and self.serving in self.filled

    @property
    def spare(self) -> int | None:
        """One that could serve at once instead of the one that does."""
        return max((self.written & self.filled) - {self.serving}, default=None)

    @property
    def following(self) -> int:
        """The number of the next generation."""
        return max(self.present, default=0) + 1


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One rebuild, as far as it is.

    It fills `generation`; `healing`: because nothing complete serves. Of the sources, `read` entries were taken by the
    steps before and `current` by this one, which goes on at `token`; a complete one takes about `expected` of them to
    fill, and as many to check. `repaired`: entries that the check found behind, and mended. `left_out`: entries that
    the engine refuses. `digest`: over ids and versions of all that was checked. `trouble`: why it doesn't get on.
    `started` and `ended` are in seconds since 1970, as is `until`, to which `holder` alone may work on it.
    """

    rebuild_id: str
    generation: int
    started: float
    healing: bool = False
    step: Step = Step.PREPARE
    token: str = ""
    read: int = 0
    current: int = 0
    expected: int = 0
    repaired: int = 0
    left_out: int = 0
    digest: str = ""
    trouble: str = ""
    ended: float = 0
    holder: str = ""
    until: float = 0

    @property
    def running(self) -> bool:
        return not self.ended
