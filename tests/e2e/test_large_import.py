"""Large files: all that can be are found, none is written twice, no process grows with the file."""

import gzip
import json
import random
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from bench.catalog_import import import_file, new_stack, peaks
from devstack.stack import ALL_SERVICES
from ops.verify import quiet

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "chorus" / "products.jsonl.gz"
ROWS = 19_406
# They have control characters in their texts.
REJECTED = 6

# Rows of the files that are compared, and the products that they repeat.
FEW, MANY, PRODUCTS = 4_000, 40_000, 1_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.skipif(not FILE.exists(), reason="the folder shared/data/chorus isn't beside the repository")
async def test_a_large_file_is_found_whole_and_written_once() -> None:
    async with new_stack() as (_, clients):
        done = await import_file(clients, FILE)
        again = await import_file(clients, FILE)
    assert done.report.outcomes == {"CREATED": ROWS - REJECTED, "REJECTED": REJECTED}
    assert {rejection.reason.partition(": ")[2] for rejection in done.report.rejections} == {
        "must not hold control characters"
    }
    assert again.report.outcomes == {"UNCHANGED": ROWS - REJECTED, "REJECTED": REJECTED}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_process_grows_with_the_file(tmp_path: Path) -> None:
    """Ten times as many rows take no service, and not the client, more memory than a third of what the files differ by.
    Engines hold the data: they are left out, and spared by rows that come again and change nothing. What the other
    services take for a new product is therefore compared for no more than PRODUCTS of them."""
    few, small = written(tmp_path / "few.jsonl.gz", FEW)
    many, large = written(tmp_path / "many.jsonl.gz", MANY)
    assert large - small > 150e6
    async with new_stack(ALL_SERVICES) as (stack, clients):
        async with peaks(stack) as first:
            await import_file(clients, few)
            await quiet(stack.info(), 300)
        async with peaks(stack) as second:
            done = await import_file(clients, many)
            await quiet(stack.info(), 300)
    assert done.report.outcomes == {"UNCHANGED": MANY}
    grown = {name: second[name] - first[name] for name in (*ALL_SERVICES, "importer")}
    assert {name: size for name, size in grown.items() if size > (large - small) / 3} == {}, (first, second)


def written(path: Path, rows: int) -> tuple[Path, int]:
    """A file of so many products with long texts, and the bytes of its text."""
    size = 0
    with gzip.open(path, "wb", compresslevel=1) as file:
        for line in described(rows):
            size += file.write(line)
    return path, size


def described(rows: int) -> Iterator[bytes]:
    """The same products over and over, with long texts of pictures: search indexes none of these."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(2_000)]
    lines = []
    for number in range(PRODUCTS):
        media = [
            {"uri": f"https://shop.example/{number}/{n}", "alt_text": " ".join(chance.choices(words, k=60))}
            for n in range(9)
        ]
        row = {"sku": f"long-{number}", "name": f"Thing {number}", "price": "2.50", "currency": "GBP", "media": media}
        lines.append(json.dumps(row).encode() + b"\n")
    return islice(cycle(lines), rows)
