"""Reading one's own writes: what a write is answered with, and a read elsewhere may be asked to wait for."""

import json
from dataclasses import dataclass
from typing import Self

from chassis.signing import sign, signed

# The trailing metadata of a write's answer.
METADATA = "polymart-consistency-token"
_PURPOSE = "consistency"


@dataclass(frozen=True, slots=True)
class ConsistencyToken:
    """An aggregate and the version that a write led to."""

    aggregate_id: str
    version: int

    def encode(self, key: str) -> str:
        body = json.dumps([self.aggregate_id, self.version], separators=(",", ":")).encode()
        return sign(body, key=key, purpose=_PURPOSE)

    @classmethod
    def decode(cls, token: str, key: str) -> Self:
        """Raises ValueError for one that `encode` didn't make with this key."""
        aggregate_id, version = json.loads(signed(token, key=key, purpose=_PURPOSE))
        return cls(aggregate_id, version)
