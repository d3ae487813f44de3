"""What mail servers say, without whom they say it about: it is kept where it outlives the customer."""

import re

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"']+@[^\s<>()\[\],;:\"']+")
_LONGEST = 300
_HIDDEN = "…"


def without(reason: str, *secrets: str) -> str:
    """`reason` with everything that is an e-mail address, or one of `secrets` as a word of its own, left out."""
    text = _ADDRESS.sub(_HIDDEN, reason)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, text, flags=re.IGNORECASE)
    return text[:_LONGEST]
