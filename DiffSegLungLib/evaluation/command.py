"""The command ``evaluate``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

PARTS = ("cases", "borrowed", "lungs", "robustness")
LEAST_PATCHES = 8
REACHED = {True: "yes", False: "NO"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    what_help = "judge generated patches instead of the segmentation; needs --store"
    parser.add_argument("what", nargs="?", choices=("generation",), help=what_help)
    store_help = "of 'train prepare', with patients held back; for 'generation'"
    parser.add_argument("--store", metavar="FOLDER", type=Path, help=store_help)
    output_help = "takes what is written: RESULTS.md and its figures (default: Testing/evaluation)"
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, default=Path("Testing/evaluation"), help=output_help
    )
    patches_help = "patches that 'generation' draws by each sampler (default: 64)"
    parser.add_argument("--patches", metavar="N", type=_patches, default=64, help=patches_help)
    data_help = "the real CT (default: DIFFSEGLUNG_DATA, else ../shared/data)"
    parser.add_argument("--data", metavar="FOLDER", type=Path, default=default_data(), help=data_help)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    tuning_help = "use the hosts and seeds that the method may be tuned on"
    parser.add_argument("--tuning", action="store_true", help=tuning_help)
    parser.add_argument("--parts", metavar="PART", nargs="+", choices=PARTS, default=PARTS, help="run these")
    parser.set_defaults(handler=run)


def _patches(text: str) -> int:
    """A number of patches, for argparse: features of fewer tell no covariance."""
    if not text.isdecimal() or int(text) < LEAST_PATCHES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {LEAST_PATCHES} on")
    return int(text)


def default_data() -> Path:
    """Where the real CT lie."""
    return Path(os.environ.get("DIFFSEGLUNG_DATA", "../shared/data"))


def run(arguments: argparse.Namespace) -> int:
    """Run the evaluation, write its files, and print its figures."""
    return _run_generation(arguments) if arguments.what == "generation" else _run_study(arguments)


def _run_generation(arguments: argparse.Namespace) -> int:
    """How real generated patches look to the model's own encoder."""
    from DiffSegLungLib.errors import UnusableInputError
    from DiffSegLungLib.evaluation.generation import GenerationPlan, evaluate_generation
    from DiffSegLungLib.progress import BarProgress

    if arguments.store is None:
        raise UnusableInputError("'evaluate generation' needs --store, a folder of 'train prepare'.")
    bar = BarProgress()
    try:
        plan = GenerationPlan(arguments.store, arguments.model, arguments.patches)
        result = evaluate_generation(plan, arguments.output, bar)
    finally:
        bar.close()
    print(f"{'':32s}{'Frechet*':>10s}{'MMD*':>10s}{'SSIM':>8s}{'PSNR':>8s}")
    for name, one in result["generators"].items():
        distances = f"{one['frechet_own_encoder']:10.3f}{one['mmd_own_encoder']:10.4f}"
        print(f"{name:32s}{distances}{one['ssim']:8.3f}{one['psnr_db']:8.1f}")
    print("* on this model's own encoder; not comparable with Inception FID")
    print(arguments.output / "generation.json")
    return 0


def _run_study(arguments: argparse.Namespace) -> int:
    """Lesions of known truth, baselines, robustness; each figure is printed beside its target."""
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
