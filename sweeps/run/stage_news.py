"""Tells which stages were found damaged and are made again, by whichever process found it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from carcls.stages import LOG, StageStore


class DamageNews:
    """An Observer that reads on in the store's log, one line for each stage dropped since it was made.

    Args:
        stages: the store.
        tell: gets the line.
    """

    def __init__(self, stages: StageStore, tell: Callable[[str], None]) -> None:
        self._log = stages.root / LOG
        self._tell = tell
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def trial_changed(self, _record: object) -> None:
        """Look for news."""
        self.check()

    def check(self) -> None:
        """Tell what was dropped since the last time."""
        with suppress(FileNotFoundError), self._log.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if line.endswith(b"\n"):  # the rest is still being written
                    self._read += len(line)
                    self._say(line)

    def _say(self, line: bytes) -> None:
        with suppress(ValueError, KeyError, TypeError):  # the log itself may be damaged, and nothing depends on it
            event = json.loads(line)
            if event["event"] == "dropped":
                self._tell(f"damaged, so it is made again: {event['kind']} {event['digest']} ({event['reason']})")
