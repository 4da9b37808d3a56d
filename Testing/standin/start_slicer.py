"""The bench as the Slicer executable, for scripts: what it does with ``--python-script``.

    python Testing/standin/start_slicer.py --no-main-window --no-splash \
        --additional-module-paths DiffSegLung --python-script SCRIPT -- ARGUMENTS

The script is run as ``__main__`` with its arguments in ``sys.argv``, the ``--`` included, as Slicer passes
them on; the application then lives until the script has asked for its end by ``slicer.util.exit(status)``.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Slicer's own options, and the script's arguments."""
    parser = argparse.ArgumentParser("Slicer", description=__doc__.splitlines()[0])
    parser.add_argument("--no-main-window", action="store_true")
    parser.add_argument("--no-splash", action="store_true")
    parser.add_argument("--additional-module-paths", nargs="+", type=Path, default=[])
    parser.add_argument("--python-script", type=Path, required=True)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    return parser.parse_args(arguments[:cut]), arguments[cut:]


def main(arguments: list[str]) -> int:
    """Starts the application and runs the script; returns the status that the script has asked for."""
    options, scriptArguments = parse_arguments(arguments)
    sys.path.remove(str(BENCH))  # this file's folder; `import slicer` must not find the bench's folders
    import slicer  # noqa: F401

    sys.path.insert(0, str(BENCH))
    import qt
    import standin

    app = standin.start(testing=False)
    for folder in options.additional_module_paths:
        for module in sorted(folder.glob("*.py")):
            standin.loadScriptedModule(module)
    sys.argv = [str(options.python_script), *scriptArguments]
    script = str(options.python_script)
    qt.QTimer.singleShot(0, lambda: runpy.run_path(script, run_name="__main__"))
    return int(app.exec())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
