"""The command ``evaluate``: its options, and what it does with them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from DiffSegLungLib.evaluation.parts import PARTS, QUICK_PARTS

DEFAULT_OUTPUT = Path("Testing/evaluation")
KEPT = "kept"
"""Folder of finished tasks, below the output's."""
LEAST_PATCHES = 8
REACHED = {True: "yes", False: "NO"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    what_help = "judge generated patches (needs --store), or corrections by strokes, not the segmentation"
    parser.add_argument("what", nargs="?", choices=("generation", "strokes"), help=what_help)
    store_help = "of 'train prepare', with patients held back; for 'generation'"
    parser.add_argument("--store", metavar="FOLDER", type=Path, help=store_help)
    output_help = "takes RESULTS.md and its figures (default: Testing/evaluation; with --tuning nothing)"
    parser.add_argument("--output", metavar="FOLDER", type=Path, help=output_help)
    patches_help = "patches that 'generation' draws by each sampler (default: 64)"
    parser.add_argument("--patches", metavar="N", type=_patches, default=64, help=patches_help)
    data_help = "the real CT (default: DIFFSEGLUNG_DATA, else ../shared/data)"
    parser.add_argument("--data", metavar="FOLDER", type=Path, default=default_data(), help=data_help)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    tuning_help = (
        "the read CT that the method may be tuned on, in minutes; other parts with their tuning hosts"
    )
    parser.add_argument("--tuning", action="store_true", help=tuning_help)
    parts = parser.add_mutually_exclusive_group()
    parts_help = f"run these (default: {' '.join(QUICK_PARTS)}; with --tuning: readings)"
    parts.add_argument("--parts", metavar="PART", nargs="+", choices=PARTS, help=parts_help)
    all_help = "run every part: older painted lesions, ablations, probe and robustness too (hours)"
    parts.add_argument("--all", action="store_true", help=all_help)
    fresh_help = "measure everything anew; without it, what a stopped run of this very code finished is kept"
    parser.add_argument("--fresh", action="store_true", help=fresh_help)
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
    runs = {"generation": _run_generation, "strokes": _run_strokes, None: _run_study}
    return runs[arguments.what](arguments)


def _run_generation(arguments: argparse.Namespace) -> int:
    """How real generated patches look to the model's own encoder."""
    from DiffSegLungLib.errors import UnusableInputError
    from DiffSegLungLib.evaluation.generation import GenerationPlan, evaluate_generation
    from DiffSegLungLib.progress import BarProgress

    if arguments.store is None:
        raise UnusableInputError("'evaluate generation' needs --store, a folder of 'train prepare'.")
    output = arguments.output or DEFAULT_OUTPUT
    bar = BarProgress()
    try:
        plan = GenerationPlan(arguments.store, arguments.model, arguments.patches)
        result = evaluate_generation(plan, output, bar)
    finally:
        bar.close()
    print(f"{'':32s}{'Frechet*':>10s}{'MMD*':>10s}{'SSIM':>8s}{'PSNR':>8s}")
    for name, one in result["generators"].items():
        distances = f"{one['frechet_own_encoder']:10.3f}{one['mmd_own_encoder']:10.4f}"
        print(f"{name:32s}{distances}{one['ssim']:8.3f}{one['psnr_db']:8.1f}")
    print("* on this model's own encoder; not comparable with Inception FID")
    print(output / "generation.json")
    return 0


def _run_strokes(arguments: argparse.Namespace) -> int:
    """How far a simulated reader's strokes take a result."""
    from DiffSegLungLib.evaluation.correction_study import CorrectionPlan, evaluate_strokes, text_of
    from DiffSegLungLib.progress import BarProgress

    output = arguments.output or DEFAULT_OUTPUT
    bar = BarProgress()
    try:
        plan = CorrectionPlan(arguments.data, arguments.model, _kept(arguments, output))
        result = evaluate_strokes(plan, output, bar)
    finally:
        bar.close()
    print(text_of(result["cases"]))
    print(output / "STROKES.md")
    return 0


def _run_study(arguments: argparse.Namespace) -> int:
    """Readings, painted kinds and what else was asked for; read CT are printed first."""
    from DiffSegLungLib.evaluation.study import Plan, run_study
    from DiffSegLungLib.evaluation.summary import results, write_all
    from DiffSegLungLib.progress import BarProgress

    output = arguments.output or (None if arguments.tuning else DEFAULT_OUTPUT)
    plan = Plan(
        arguments.data, arguments.tuning, _parts(arguments), arguments.model, _kept(arguments, output)
    )
    bar = BarProgress()
    try:
        outcome = run_study(plan, bar)
    finally:
        bar.close()
    summary = write_all(output, outcome) if output else results(outcome)
    _print_readings(summary)
    _print_painted(summary)
    if not arguments.tuning:
        _print_targets(summary)
    if output:
        print(output / "RESULTS.md")
    return 0


def _kept(arguments: argparse.Namespace, output: Path | None) -> Path | None:
    """Where finished tasks are kept; nowhere for what is only printed, away from the source tree."""
    folder = output or DEFAULT_OUTPUT
    return None if arguments.fresh or not (output or folder.exists()) else folder / KEPT


def _parts(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.all:
        return PARTS
    return tuple(arguments.parts or (("readings",) if arguments.tuning else QUICK_PARTS))


def _print_readings(summary: dict[str, Any]) -> None:
    """Dice of each reader, ours and beside us; lesions found and false alarms."""
    if "readings" not in summary:
        return
    others = {name: row["readings"] for name, row in summary["baselines"].items() if "readings" in row}
    columns = ["DiffSegLung", *others, "second reader"]
    head = "".join(f"{name:>{len(name) + 3}s}" for name in columns)
    print(f"{'Dice on read CT':26s}{head}   found  false %")
    for case, readers in summary["readings"].items():
        for reader, row in readers.items():
            dice = [row["dice"], *(one.get(case, {}).get(reader) for one in others.values())]
            dice.append(summary["second_reader"].get(case, {}).get(reader))
            cells = "".join(
                f"{_two(value):>{len(name) + 3}s}" for name, value in zip(columns, dice, strict=True)
            )
            found = f"{row['found']}/{row['lesions']}"
            print(f"{case + ' ' + reader:26s}{cells}{found:>8s}{row['healthy_disease_percent']:9.1f}")
    print(f"mean over CT: {summary['readings_mean_dice']:.3f}")


def _print_painted(summary: dict[str, Any]) -> None:
    """Dice of each painted kind, and its false alarms."""
    for kind, row in summary.get("painted_figures", {}).items():
        dice = f"Dice {row['dice']:.2f}" if "dice" in row else "no disease"
        print(f"painted {kind:40s} {dice:12s} false {row['false_percent']:5.1f} %")


def _print_targets(summary: dict[str, Any]) -> None:
    from DiffSegLungLib.evaluation.targets import targets

    for name, target, value, reached in targets(summary):
        print(f"{name:58s} {target:>16s} {value:>10s}  {REACHED[reached]}")


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
