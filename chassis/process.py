"""`python -m chassis.process <module> [argument ...]` is `python -m <module>` for a container's process 1.

The kernel drops every signal that process 1 has no handler for, and a service needs a while until it has its own: until
then, and for as long as a migration runs, SIGTERM ends the process at once. What a migration had begun is rolled back,
or done again by the next.
"""

import os
import runpy
import signal
import sys
from importlib.util import find_spec
from types import FrameType

_EXIT_USAGE = 2


def end_at_once(number: int, _: FrameType | None = None) -> None:
    """End without a word to anybody, with the exit code of what a signal killed."""
    os._exit(128 + number)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_at_once)
    if len(sys.argv) < 2 or find_spec(sys.argv[1]) is None:
        sys.stderr.write("usage: python -m chassis.process <service> [argument ...]\n")
        sys.exit(_EXIT_USAGE)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
