"""What of the libraries' own words is logged."""

import subprocess
import sys

PROGRAM = """
import logging
from chassis.telemetry import configure_logging
configure_logging("INFO", "tiny_svc")
for name in ("asyncpg", "elastic_transport.node_pool"):
    logging.getLogger(name).warning("warns")
    logging.getLogger(name).error("fails")
"""


def test_libraries_warn_but_for_elasticsearchs_client_which_would_at_every_try() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    said = [("warns" in line, "elastic_transport" in line) for line in told.stderr.splitlines()]
    assert said == [(True, False), (False, False), (False, True)]
