"""The command ``evaluate``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

PARTS = ("cases", "borrowed", "lungs", "robustness")
REACHED = {True: "yes", False: "NO"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    output_help = "takes RESULTS.md, results.json, CSV and figures (default: Testing/evaluation)"
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, default=Path("Testing/evaluation"), help=output_help
    )
    data_help = "the real CT (default: DIFFSEGLUNG_DATA, else ../shared/data)"
    parser.add_argument("--data", metavar="FOLDER", type=Path, default=default_data(), help=data_help)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    tuning_help = "use the hosts and seeds that the method may be tuned on"
    parser.add_argument("--tuning", action="store_true", help=tuning_help)
    parser.add_argument("--parts", metavar="PART", nargs="+", choices=PARTS, default=PARTS, help="run these")
    parser.set_defaults(handler=run)


def default_data() -> Path:
    """Where the real CT lie."""
    return Path(os.environ.get("DIFFSEGLUNG_DATA", "../shared/data"))


def run(arguments: argparse.Namespace) -> int:
    """Run the evaluation, write its files, and print each figure beside its target."""
    from DiffSegLungLib.evaluation.study import Plan, run_study
    from DiffSegLungLib.evaluation.summary import targets, write_all
    from DiffSegLungLib.progress import BarProgress

    plan = Plan(arguments.data, arguments.tuning, tuple(arguments.parts), arguments.model)
    bar = BarProgress()
    try:
        outcome = run_study(plan, bar)
    finally:
        bar.close()
    summary: dict[str, Any] = write_all(arguments.output, outcome)
    for name, target, value, reached in targets(summary):
        print(f"{name:36s} {target:>16s} {value:>10s}  {REACHED[reached]}")
    print(arguments.output / "RESULTS.md")
    return 0
