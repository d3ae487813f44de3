"""`python -m devstack.watchdog FOLDER`: stop a stack whose supervisor is gone.

Its standard input is a pipe that nobody writes to and whose other end the supervisor holds, so that it ends when
the supervisor does, whatever killed it. A supervisor that stopped in order has removed its record by then.
"""

import signal
import sys
import time
from pathlib import Path

from devstack.home import read_state, stop_recorded, try_lock

PATIENCE = 5.0


def main(folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # A process that dies gives up its pipe and its lock one after the other. Whoever takes the folder meanwhile, the
    # next stack or `polymart down`, tidies up itself.
    deadline = time.monotonic() + PATIENCE
    while read_state(folder) and time.monotonic() < deadline:
        if try_lock(folder) is not None:
            stop_recorded(folder)
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
