"""A year of a real shop's invoices through every service, to the penny."""

import asyncio
import json
import os
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from devstack.stack import Stack
from ops.clients import Clients
from ops.invoices import stream
from ops.replay import Replay, kept_by_customer, prepare, survey
from ops.verify import quiet, verify

FILE = Path(__file__).parents[3] / "shared" / "data" / "online_retail" / "lines.csv.gz"
SCRIPT = Path(__file__).with_name("invoice_totals.py")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(not FILE.exists(), reason=f"{FILE.name} of the online retail data isn't beside this repository")
async def test_a_years_invoices_come_to_what_the_file_says_for_every_customer(tmp_path: Path) -> None:
    """What can be begun in POLYMART_REPLAY_SECONDS (300, or "all")."""
    asked = os.environ.get("POLYMART_REPLAY_SECONDS", "300")
    seconds = None if asked == "all" else float(asked)
    async with Stack(tmp_path / "stack") as stack:
        clients = Clients(stack.address)
        try:
            found = survey(stream(FILE))
            await prepare(clients, found)
            replay = Replay(clients, found)
            await replay.run(stream(FILE), seconds=seconds)
            report = replay.report
            (tmp_path / "report.txt").write_text(repr(report))
            assert report.faults == []
            assert report.unexplained == 0
            assert report.invoices > 0
            await quiet(stack.info(), 600)
            told = await kept_by_customer(clients)
            assert {who: total for who, total in told.items() if total} == await straight_from_the_file(report.invoices)
            checked = await verify(stack.info())
            assert checked.findings == []
        finally:
            await clients.close()


async def straight_from_the_file(invoices: int) -> dict[str, Decimal]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(SCRIPT), str(FILE), str(invoices)), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    return {who: Decimal(total) for who, total in json.loads(out).items() if Decimal(total)}
