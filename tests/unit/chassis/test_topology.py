import importlib
import pkgutil
from dataclasses import replace

import pytest
from google.protobuf import descriptor_pool

from chassis.messaging.topology import COMMANDS, DLQ_RETENTION, EVENT_RETENTION, INBOX_RETENTION, TOPOLOGY, Consumer


def test_everything_fits_together() -> None:
    assert TOPOLOGY.lint() == []


@pytest.mark.parametrize("name", TOPOLOGY.routes)
def test_every_published_type_has_a_proto(name: str) -> None:
    package = importlib.import_module(name.rpartition(".")[0])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    assert descriptor_pool.Default().FindMessageTypeByName(name).full_name == name


def test_every_subject_belongs_to_the_stream_of_its_route_alone() -> None:
    for route in TOPOLOGY.routes.values():
        subject = route.subject("any id")
        taking = [s.name for s in TOPOLOGY.streams if subject.startswith(tuple(p[:-1] for p in s.subjects))]
        assert taking == [route.stream]


def test_inbox_rows_outlive_every_message_that_could_come_again() -> None:
    assert INBOX_RETENTION > EVENT_RETENTION + DLQ_RETENTION


def test_the_lint_names_what_is_wrong() -> None:
    command = next(r.type for r in TOPOLOGY.routes.values() if r.stream == COMMANDS)
    wrong = replace(
        TOPOLOGY,
        consumers=(
            *TOPOLOGY.consumers,
            TOPOLOGY.consumers[0],
            Consumer("other_svc", COMMANDS, (command, "polymart.order.v1.Nothing")),
            Consumer("other_svc", "EVT_ORDER", (command,)),
        ),
    )
    faults = "\n".join(wrong.lint())
    assert "has two owners" in faults
    assert "which nobody publishes" in faults
    assert f"command {command} has two consumers" in faults
    assert "which is in CMD" in faults
    assert "has no consumer" in "\n".join(replace(TOPOLOGY, consumers=()).lint())
