"""The `polymart` command, run as a user would."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.shop import Shop


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


async def polymart(where: Shop | Path, *arguments: str, **settings: str) -> Ended:
    """Run it on a shop's stack, or in a data folder."""
    home = where.stack.info().folder if isinstance(where, Shop) else where
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POLYMART_")}
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("polymart")), *arguments),
        env={**kept, "POLYMART_HOME": str(home), **settings},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
