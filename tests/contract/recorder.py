"""What the catalog's stores ask of the engine."""

import copy
from typing import Any

from pymongo.monitoring import CommandListener, CommandStartedEvent, register

_KEPT = ("find", "update", "delete", "aggregate")


class Recorder(CommandListener):
    """The commands that were sent while it is on, each with the name of its database."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.on = False

    def started(self, event: CommandStartedEvent) -> None:
        if self.on and event.command_name in _KEPT:
            self.commands.append((event.database_name, copy.deepcopy(dict(event.command))))

    def succeeded(self, event: object) -> None: ...
    def failed(self, event: object) -> None: ...


RECORDER = Recorder()
register(RECORDER)
