"""Where stock lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from chassis.errors import NotFound

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Location:
    """A warehouse. Orders are served from the lowest priority first; `version` counts the writes."""

    location_id: str
    display_name: str = ""
    priority: int = 0
    version: int = 1
    created_at: datetime = _NEVER
    updated_at: datetime = _NEVER

    @property
    def etag(self) -> str:
        return str(self.version)

    def changed(self, changes: Mapping[str, str | int]) -> "Location":
        """With other values of `display_name` and `priority`."""
        return replace(self, **changes, version=self.version + 1)  # type: ignore[arg-type]

    def same_as(self, other: "Location") -> bool:
        """Do both say the same, apart from when?"""
        return (self.display_name, self.priority) == (other.display_name, other.priority)


def unknown_locations(ids: Sequence[str]) -> NotFound:
    named = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return NotFound(f"no such location: {named}", reason="LOCATION_NOT_FOUND")
