"""Synonyms from a file, taken up again whenever it changes."""

import time
from collections.abc import Callable
from pathlib import Path

import structlog

from search_svc.domain.synonyms import BadSynonyms, Synonyms

log = structlog.get_logger(__name__)

_EVERY = 1.0
_LARGEST = 10_000_000


class SynonymsFile:
    """Looked at when used, at most once a second. A file that can't be taken up is told once, and what was known
    before stays."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic):
        """Raises BadSynonyms."""
        self._path = path
        self._now = now
        self._looked = now()
        self._known, self._read = Synonyms(), (0, 0, 0)
        try:
            self._take_up()
        except OSError as error:
            raise BadSynonyms([f"{path} can't be read: {error.strerror}"]) from error

    def __call__(self) -> Synonyms:
        if (now := self._now()) - self._looked >= _EVERY:
            self._looked = now
            try:
                self._take_up()
            except BadSynonyms as error:
                log.error("synonyms stay as they were", file=str(self._path), faults=error.faults)
            except OSError as error:
                log.error("synonyms stay as they were", file=str(self._path), faults=[str(error)])
        return self._known

    def _take_up(self) -> None:
        status = self._path.stat()
        found = (status.st_mtime_ns, status.st_size, status.st_ino)
        if found == self._read:
            return
        # Remembered first, so that a bad file is told once.
        self._read = found
        if status.st_size > _LARGEST:
            raise BadSynonyms([f"has over {_LARGEST:,} bytes"])
        try:
            self._known = Synonyms.read(self._path.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise BadSynonyms([f"is not valid UTF-8 at byte {error.start + 1}"]) from None
        log.info("synonyms taken up", file=str(self._path))
