from datetime import timedelta

import pytest

from chassis.clock import ManualClock
from chassis.errors import Internal, Unavailable
from search_svc.application.lag import ProjectionLag


def test_the_lag_is_that_of_the_oldest_event_in_hand_or_what_it_was_of_the_last() -> None:
    clock, told = ManualClock(), list[tuple[str, float]]()
    lag = ProjectionLag(clock, lambda kind, seconds: told.append((kind, seconds)))
    assert lag.seconds is None
    old, new = clock.now() - timedelta(seconds=9), clock.now()
    with lag.applying("products", [("Updated", new), ("Created", old)]):
        assert lag.seconds == 9
        clock.advance(timedelta(seconds=1))
        assert lag.seconds == 10
        with lag.applying("stock", [("Changed", clock.now())]):
            assert lag.seconds == 10
    assert told == [("Changed", 0), ("Updated", 1), ("Created", 10)]
    clock.advance(timedelta(seconds=60))
    assert lag.seconds == 10


def test_what_an_outage_leaves_undone_grows_older() -> None:
    clock = ManualClock()
    lag = ProjectionLag(clock, lambda kind, seconds: None)
    event = [("Updated", clock.now())]
    with pytest.raises(Unavailable), lag.applying("products", event):
        raise Unavailable("away")
    clock.advance(timedelta(seconds=30))
    assert lag.seconds == 30
    with lag.applying("products", event):
        pass
    clock.advance(timedelta(seconds=30))
    assert lag.seconds == 30
    # What is wrong with a message itself is no lag.
    with pytest.raises(Internal), lag.applying("products", event):
        raise Internal("bad")
    assert lag.seconds == 30
