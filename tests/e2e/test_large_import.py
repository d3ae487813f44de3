"""A file of 19,406 products: all that can be are found, none is written twice, no process grows with the file."""

from pathlib import Path

import pytest

from bench.catalog_import import SERVICES, Import, first_rows, import_file, new_stack, peaks

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "chorus" / "products.jsonl.gz"
ROWS = 19_406
# They have control characters in their texts.
REJECTED = 6
# What allocators and caches do by themselves; the file has 60 MB of text.
SLACK = 24 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.skipif(not FILE.exists(), reason="the folder shared/data/chorus isn't beside the repository")
async def test_a_large_file_is_found_whole_and_takes_no_more_memory_than_half_of_it(tmp_path: Path) -> None:
    half = first_rows(FILE, ROWS // 2, tmp_path / "half.jsonl.gz")
    _, small = await imported(half)
    done, large = await imported(FILE)
    assert done.report.outcomes == {"CREATED": ROWS - REJECTED, "REJECTED": REJECTED}
    assert {rejection.reason.partition(": ")[2] for rejection in done.report.rejections} == {
        "must not hold control characters"
    }
    for name in (*SERVICES, "importer"):
        assert large[name] < small[name] + SLACK, (name, small, large)


async def imported(file: Path) -> tuple[Import, dict[str, int]]:
    """An import into a new stack, and the peak of each process; a second one writes nothing."""
    async with new_stack() as (stack, clients):
        async with peaks(stack) as memory:
            done = await import_file(clients, file)
        if file == FILE:
            again = await import_file(clients, file)
            assert again.report.outcomes == {"UNCHANGED": ROWS - REJECTED, "REJECTED": REJECTED}
    return done, memory
