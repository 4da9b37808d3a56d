"""Options that the commands of the training share, and what they mean for the process."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import Any

from DiffSegLungLib.progress import Progress
from DiffSegLungLib.signals import handled


@contextmanager
def reported(kind: str) -> Iterator[Progress]:
    """Progress as ``segment`` shows it: JSON lines on standard output, or a bar on standard error."""
    from DiffSegLungLib.progress import BarProgress, JsonProgress, silent

    if kind == "json":
        records = sys.stdout
        with redirect_stdout(sys.stderr):  # what libraries print must not get between the records
            yield JsonProgress(records)
        return
    bar = BarProgress() if kind == "bar" else None
    try:
        yield bar or silent
    finally:
        if bar:
            bar.close()


@contextmanager
def processor(threads: int | None) -> Iterator[None]:
    """Use so many cores; numbers too small to matter become 0, since they slow the processor down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def interrupt_as_termination() -> AbstractContextManager[None]:
    """Ctrl+C ends a run as SIGTERM does: after the step, with a checkpoint."""
    return handled(lambda *_: signal.raise_signal(signal.SIGTERM), "SIGINT")


def add_action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A parser of one action of ``train``."""
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    add_progress(parser)
    return parser


def add_progress(parser: argparse.ArgumentParser) -> None:
    """The option ``--progress``."""
    progress_help = "a bar, one JSON object a line on standard output, or nothing (default: bar)"
    parser.add_argument("--progress", choices=("json", "bar", "none"), default="bar", help=progress_help)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option ``--threads``."""
    # More than are idle is far worse than fewer: the threads wait for the one that shares its core.
    threads_help = "processor cores to use; no more than are idle (default: all)"
    parser.add_argument("--threads", metavar="N", type=count, help=threads_help)


def count(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def seed(text: str) -> int:
    """A seed, for argparse."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def channel_count(text: str) -> int:
    """Channels of a level, a multiple of 8, for argparse."""
    if count(text) % 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 8")
    return int(text)


def held_back_share(text: str) -> float:
    """A share of patients, for argparse."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 0.9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 0.9")
    return share


def length_mm(text: str) -> float:
    """The side of a voxel in mm, for argparse."""
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not 0.3 <= length <= 5.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length from 0.3 to 5 mm")
    return length
