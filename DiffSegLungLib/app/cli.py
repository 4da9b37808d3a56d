"""The command line: from words to an exit status, with one-line errors."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from types import FrameType
from typing import NoReturn

from DiffSegLungLib.app.arguments import build_parser
from DiffSegLungLib.app.handlers import run_serve
from DiffSegLungLib.app.program import CANCELLED, DONE, OUR_FAULT, PROGRAM
from DiffSegLungLib.errors import DiffSegLungError, MissingPartError, is_out_of_memory
from DiffSegLungLib.io.files import ours_alone
from DiffSegLungLib.signals import handled

LIBRARY = "DiffSegLungLib"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments without the program's name; None for the process's own.

    Returns:
        Exit status: 0 done; 1 our fault; 2 wrong use or unusable input; 3 something missing; 130 cancelled.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # it may stand anywhere
    try:
        with handled(_interrupt, "SIGTERM", "SIGBREAK"):
            with_training = "train" in words or "finetune" in words
            arguments = build_parser(with_training).parse_args(words)
            # The page's server reads for several at a time; any other command waits while it reads.
            with nullcontext() if arguments.handler is run_serve else ours_alone():
                return int(arguments.handler(arguments) or DONE)
    except SystemExit as stop:  # argparse: --help, --version or a wrong argument, already written
        return int(stop.code or DONE)
    except (Exception, KeyboardInterrupt) as error:
        return _fail(error, debug)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A request to end unwinds the stack like Ctrl+C, so that unfinished files are removed."""
    raise KeyboardInterrupt


def _fail(error: BaseException, debug: bool) -> int:
    """Writes the error's one line and returns its exit status."""
    if isinstance(error, BrokenPipeError):  # as in `... | head`: nobody reads on
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANCELLED
    if debug:
        traceback.print_exception(error)
    status, message = _explain(error)
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit status and message of an error; those that are not ours get a remedy here."""
    if isinstance(error, DiffSegLungError):
        return error.exit_status, str(error)
    if isinstance(error, KeyboardInterrupt):
        return CANCELLED, "Cancelled; no unfinished file is left."
    if is_out_of_memory(error):
        return MissingPartError.exit_status, (
            "Not enough memory: close other programs, or use --device cpu if a graphics card was used."
        )
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith(LIBRARY):
        return MissingPartError.exit_status, (
            f"The Python package {error.name} is missing: install DiffSegLung's requirements with pip."
        )
    if isinstance(error, ImportError) and not str(error.name).startswith(LIBRARY):
        return MissingPartError.exit_status, (
            f"A Python package cannot be used: {error}.{_newer_packages()} See 'diffseglung check'."
        )
    return OUR_FAULT, (
        f"{type(error).__name__}: {error}.{_newer_packages()} The fault is DiffSegLung's: add --debug and "
        "report what it shows."
    )


def _newer_packages() -> str:
    """A sentence on packages that are too new; nothing where there are none, or no way to tell."""
    try:
        from DiffSegLungLib.app.check import untried

        names = ", ".join(untried())
    except Exception:  # an error is being explained: a second one would hide it
        return ""
    return f" Newer than what was tried: {names}; install the tried versions with pip." if names else ""
