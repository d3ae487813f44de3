"""The store in memory: what changes write, and nothing else."""

from collections.abc import Sequence

from inventory_svc.domain.reservations import Change, Command, Event, Hold, HoldState, decide, skus_of
from inventory_svc.domain.stock import MAIN, Adjustment, Count, Level, Movement, Settings, adjust, configure, count

# By priority, which isn't the order of their names.
LOCATIONS = (MAIN, "north", "attic")


class Shelf:
    """The rows as they would be stored: written by changes only."""

    def __init__(self, locations: Sequence[str] = LOCATIONS, **on_hand: int):
        self.locations = locations
        self.levels: dict[str, Level] = {}
        self.holds: dict[str, Hold] = {}
        self.movements: list[Movement] = []
        self.events: list[Event] = []
        if on_hand:
            self.count(on_hand)

    def count(self, counts: dict[str, int], location: str = MAIN) -> None:
        found = [Count(sku, units, location) for sku, units in counts.items()]
        self._write(Change.of(count(self._of(list(counts)), found, "op"), list(counts)))

    def adjust(self, adjustments: Sequence[Adjustment]) -> None:
        skus = [a.sku for a in adjustments]
        self._write(Change.of(adjust(self._of(skus), adjustments, "op"), skus))

    def configure(self, *settings: Settings) -> None:
        skus = [s.sku for s in settings]
        self._write(Change.of(configure(self._of(skus), settings), skus))

    def _of(self, skus: Sequence[str]) -> dict[str, Level]:
        return {sku: self.levels.get(sku, Level(sku)) for sku in skus}

    def handle(self, *commands: Command, crash: bool = False) -> list[Event]:
        """The answers, in the commands' order."""
        holds = {c.order_id: self.holds.get(c.order_id, Hold(c.order_id)) for c in commands}
        skus = skus_of(commands, holds)
        known = {sku: self.levels[sku] for sku in skus if sku in self.levels}
        change = decide(commands, holds, known, self.locations)
        if not crash:
            self._write(change)
        return [event for event, _ in change.events][: len(commands)]

    def _write(self, change: Change) -> None:
        assert len({level.sku for level in change.levels}) == len(change.levels)
        assert len({hold.order_id for hold in change.holds}) == len(change.holds)
        self.levels |= {level.sku: level for level in change.levels}
        for hold in change.holds:
            assert hold.state is not HoldState.NEW
            self.holds[hold.order_id] = hold
        self.movements += change.movements
        self.events += [event for event, _ in change.events]

    def units(self, sku: str) -> tuple[int, int]:
        return self.levels[sku].on_hand, self.levels[sku].reserved
