"""`python -m devstack.watchdog FOLDER`: stop a stack whose supervisor is gone.

Its standard input is a pipe that nobody writes to and whose other end the supervisor holds, so that it ends when
the supervisor does, whatever killed it. A supervisor that stopped in order has removed its record by then.
"""

import signal
import sys
from pathlib import Path

from devstack.home import read_state, stop_recorded, try_lock


def main(folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # Whoever took the folder meanwhile, the next stack or `polymart down`, tidies up itself.
    if read_state(folder) and try_lock(folder) is not None:
        stop_recorded(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
