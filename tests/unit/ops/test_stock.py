"""Ages as a person writes them."""

from datetime import UTC, datetime, timedelta

import pytest

from ops.stock import age


def test_an_age_is_a_number_and_a_unit() -> None:
    found = [age(text) for text in ("90s", "30m", "2h", "1d", "36500d")]
    assert [*map(timedelta.total_seconds, found)] == [90, 1_800, 7_200, 86_400, 36_500 * 86_400]
    assert all(datetime.now(UTC) - one for one in found)


@pytest.mark.parametrize("text", ["", "1", "d", "1w", "-1d", "1.5h", "1 d", "1d\n", "\u0661d", "1000000s"])
def test_what_is_no_age_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write an age as 90s, 30m, 2h or 1d"):
        age(text)


@pytest.mark.parametrize("text", ["999999d", "36501d", "999999h"])
def test_an_age_before_all_dates_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text}: nothing is older than 36500d"):
        age(text)
