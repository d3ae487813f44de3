"""Showing that an e-mail address is its customer's: a code is sent there, and comes back."""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

LIFETIME = timedelta(days=1)
PAUSE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Verification:
    """A code that was sent; of the code itself only the digest is kept."""

    verification_id: str
    digest: bytes
    request_time: datetime

    @classmethod
    def of(cls, verification_id: str, code: str, *, now: datetime) -> "Verification":
        return cls(verification_id, _digest(code), now)

    @property
    def expire_time(self) -> datetime:
        return self.request_time + LIFETIME

    def wait(self, *, now: datetime) -> timedelta:
        """How long until the next code may be sent."""
        return max(self.request_time + PAUSE - now, timedelta(0))

    def proven_by(self, code: str, *, now: datetime) -> bool:
        return now < self.expire_time and hmac.compare_digest(self.digest, _digest(code))


def _digest(code: str) -> bytes:
    # A code is as random as a key, so one round is enough.
    return sha256(code.encode("utf-8", "surrogatepass")).digest()
