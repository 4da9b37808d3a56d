"""`PythonSlicer`: a launcher that runs Python as a child process, as Slicer's own launcher does.

So killing the launcher alone leaves the child running, and a test can find out who forgets that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# No `exec`: the shell stays as the parent.
UNIX_LAUNCHER = """#!/bin/sh
"{python}" "$@"
exit $?
"""
WINDOWS_LAUNCHER = """@"{python}" %*
"""


def install(folder: Path) -> Path:
    """Write the launcher into a folder and put this first on PATH.

    Returns:
        The launcher's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onWindows = os.name == "nt"
    launcher = folder / ("PythonSlicer.bat" if onWindows else "PythonSlicer")
    text = WINDOWS_LAUNCHER if onWindows else UNIX_LAUNCHER
    launcher.write_text(text.format(python=sys.executable), encoding="utf-8")
    launcher.chmod(0o755)
    os.environ["PATH"] = str(folder) + os.pathsep + os.environ.get("PATH", "")
    return launcher
