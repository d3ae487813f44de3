"""Writes docs/events.md: every message type with its subject, its publisher, its consumers, and what its proto says.

python proto/events_page.py            write the page
python proto/events_page.py --check    fail if it differs
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from chassis.messaging.topology import TOPOLOGY, Route

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "events.md"
HEAD = """\
# Messages

Generated from the protos and `chassis/messaging/topology.py` by `make proto`; don't edit.

A message is a protobuf message of the type named, with CloudEvents 1.0 headers (binary mode): `ce-id`, `ce-type`,
`ce-source`, `ce-subject`, `ce-time`, `ce-dataschema`, and `traceparent`, `Polymart-Correlation-Id`,
`Polymart-Causation-Id`. `<id>` is the aggregate's id as one subject token (bytes outside `[A-Za-z0-9_-]` as `=XX`).
Every message may come twice, late, and out of order.
"""


def comments() -> dict[str, str]:
    """Full message name -> the comment above it, on one line."""
    found = {}
    for path in (ROOT / "proto" / "polymart").rglob("*.proto"):
        text = path.read_text()
        package = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
        assert package is not None, path
        for comment, name in re.findall(r"^((?://.*\n)+)message (\w+) ", text, re.MULTILINE):
            found[f"{package[1]}.{name}"] = " ".join(line.lstrip("/ ") for line in comment.splitlines())
    return found


def page() -> str:
    about = comments()
    sections: list[str] = [HEAD]
    for stream in TOPOLOGY.streams:
        routes = [route for route in TOPOLOGY.routes.values() if route.stream == stream.name]
        if not routes:
            continue
        kept = f"kept {stream.max_age.days} days" if stream.max_age else "kept until they are handled"
        sections.append(f"## {stream.name}, {kept}\n")
        sections.append("| message | subject | from | to | what it says |\n|---|---|---|---|---|")
        sections.extend(row(route, about) for route in routes)
        sections.append("")
    return "\n".join(sections)


def row(route: Route, about: dict[str, str]) -> str:
    name = route.type.rpartition(".")[2]
    takers = ", ".join(consumers(route)) or "–"
    return f"| `{name}` | `{route.prefix}.<id>` | {route.publisher} | {takers} | {about[route.type]} |"


def consumers(route: Route) -> Iterator[str]:
    return (consumer.service for consumer in TOPOLOGY.consumers if route.type in consumer.types)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(None if PAGE.read_text() == page() else "docs/events.md is out of date; run `make proto`")
    PAGE.write_text(page())
