"""Engines that the tests of this folder share, and what they are told in common."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from devstack.engines import Engines, start_engines


@pytest.fixture(scope="session")
def plain() -> dict[str, str]:
    """The environment without any setting of ours, so that a developer's own doesn't change what is tested."""
    return {name: value for name, value in os.environ.items() if not name.startswith("POLYMART_")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder as `mktemp -d` makes it: only its owner may enter."""
    with TemporaryDirectory(prefix="polymart-") as made:
        assert Path(made).stat().st_mode & 0o777 == 0o700
        yield Path(made)


@pytest.fixture(scope="session")
async def engines(plain: dict[str, str]) -> AsyncIterator[Engines]:
    with TemporaryDirectory(prefix="polymart-") as made:
        async with start_engines(Path(made), {"postgres", "nats", "smtp"}, environ=plain) as started:
            yield started
