"""A process that was forked off one in which libraries had started their threads would wait for ever.

Torch's and ITK's threads are not copied with the process, but what waits for them is.
"""

from __future__ import annotations

import os
import sys

from DiffSegLungLib.errors import UnusableInputError

THREADED = ("torch", "SimpleITK")
_forked = False


def require_no_fork() -> None:
    """Refuses to compute in a forked process.

    Raises:
        UnusableInputError: it is one; a process that is started anew computes.
    """
    if _forked:
        raise UnusableInputError(
            "This process was forked off one that had loaded torch or SimpleITK, and would hang: start "
            "workers anew, with multiprocessing.get_context('spawn')."
        )


def _mark() -> None:
    global _forked
    _forked = _forked or any(name in sys.modules for name in THREADED)


_processes = sys.modules.get("multiprocessing.process")
if _processes and type(_processes.current_process()).__name__ == "ForkProcess":
    _mark()  # imported here first: the parent may have loaded them without us
if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_mark)
