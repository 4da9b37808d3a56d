"""A computation beside Slicer's window, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

YIELD_SECONDS = 0.01


class Background:
    """Begins at once; ask `isRunning` now and then, and `result` at the end.

    What it computes must not touch the scene, which is the window's alone.
    """

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute, self._result, self._error = compute, None, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._compute()
        except Exception as error:
            self._error = error

    def isRunning(self) -> bool:
        """Whether it goes on; a thread gets its turn here, for Qt's event loop keeps Python to itself."""
        if self._thread.is_alive():
            time.sleep(YIELD_SECONDS)
        return self._thread.is_alive()

    def result(self) -> Any:
        """What was computed.

        Raises:
            Exception: whatever the computation raised.
        """
        if self._error is not None:
            raise self._error
        return self._result
