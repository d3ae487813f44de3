"""How fast a file of products goes in over gRPC, how much memory each process takes for it, and when it is found.

    .venv/bin/python bench/catalog_import.py FILE

The file is imported into a new stack and imported again; the baseline is the bare insertion of the same documents by
PyMongo into the same engine, a thousand at a time.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from polymart.search.v1.search_service_pb2 import GetIndexStatusRequest
from pymongo import AsyncMongoClient

from devstack.stack import Stack
from ops.clients import Clients
from ops.importing import ImportReport, import_products, read_products

SERVICES = ("catalog_svc", "inventory_svc", "search_svc")
BASELINE_BATCH = 1_000
_PATIENCE = 300.0
_MIB = 2**20


@dataclass
class Import:
    """One import of a file; seconds from its first row to its last answer, and until all of it was found."""

    report: ImportReport = field(default_factory=ImportReport)
    seconds: float = 0.0
    searchable_after: float = 0.0


@asynccontextmanager
async def new_stack(services: Sequence[str] = SERVICES) -> AsyncIterator[tuple[Stack, Clients]]:
    with tempfile.TemporaryDirectory(prefix="polymart-bench-") as folder:
        async with Stack(Path(folder), services=services) as stack:
            clients = Clients(stack.address)
            try:
                yield stack, clients
            finally:
                await clients.close()


@asynccontextmanager
async def peaks(stack: Stack) -> AsyncIterator[dict[str, int]]:
    """The most memory in bytes that each process had while the block lasted, `importer` being this one."""
    found: dict[str, int] = {}
    this = psutil.Process()

    async def watch() -> None:
        while True:
            now = {**await asyncio.to_thread(stack.info().memory), "importer": this.memory_info().rss}
            for name, used in now.items():
                found[name] = max(used, found.get(name, 0))
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()


async def import_file(clients: Clients, file: Path) -> Import:
    """Raises TimeoutError where what was created isn't found in time."""
    done = Import()
    begun = time.monotonic()
    before = await _found(clients)
    await import_products(clients.catalog, read_products(file, done.report), done.report)
    done.seconds = time.monotonic() - begun
    async with asyncio.timeout(_PATIENCE):
        while await _found(clients) < before + done.report.outcomes["CREATED"]:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    done.searchable_after = time.monotonic() - begun
    return done


async def _found(clients: Clients) -> int:
    """0 while the index is too busy to say."""
    try:
        status = await clients.search.GetIndexStatus(GetIndexStatusRequest(), timeout=30, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return 0
    return status.products


async def inserted_barely(url: str) -> tuple[int, float]:
    """Documents and seconds of the baseline: those that the import stored, into a collection beside theirs."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url)
    try:
        database = client.get_default_database("catalog")
        documents = await database["products"].find({}, {"outbox": 0, "pending": 0}).to_list(None)
        begun = time.monotonic()
        for start in range(0, len(documents), BASELINE_BATCH):
            await database["baseline"].insert_many(documents[start : start + BASELINE_BATCH], ordered=False)
        return len(documents), time.monotonic() - begun
    finally:
        await client.close()


async def main(file: Path) -> None:
    async with new_stack() as (stack, clients):
        async with peaks(stack) as memory:
            first = await import_file(clients, file)
        _say(f"import: {first.report.rows / first.seconds:,.0f} rows/s, {first.report.rows:,} in {first.seconds:.1f} s")
        _say(f"all found in search after {first.searchable_after:.1f} s")
        for name, used in sorted(memory.items()):
            _say(f"peak of {name}: {used / _MIB:,.0f} MiB")
        again = await import_file(clients, file)
        documents, bare = await inserted_barely(stack.info().mongodb_url)
    rate, baseline = first.report.rows / first.seconds, documents / bare
    _say(f"first {dict(first.report.outcomes)}, again {dict(again.report.outcomes)}")
    _say(f"again: {again.report.rows / again.seconds:,.0f} rows/s")
    _say(f"baseline, bare insert_many of the same documents: {baseline:,.0f} documents/s")
    _say(f"the import is {rate / baseline:.2f} of its baseline")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
