"""``make bench``: time and memory of ours by stage beside what a user would run instead, in one run.

python -m Testing.bench.run [--quick] [--output Testing/evaluation/bench]

Processor time is what is compared: on a machine with other work it changes least, and at one thread it is
what the clock would show on a quiet one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from Testing.bench.machine import describe, peaks
from Testing.bench.report import write_report
from Testing.bench.scans import scan, source

ROOT = Path(__file__).resolve().parents[2]
SLICES = (75, 150, 300, 600, 1200)
THREADS = (1, 2)
QUALITIES = ("fast", "standard", "best")
SIDE, SIDE_MM = 512, 0.7
LARGE = ((768, 768, 1000), 0.4)
PUBLISHED_PATCH_ML = 32 * 96 * 96 / 1000.0
FILLING = 0.6
"""Share of lung in the published patches that hold some, without overlap: an assumption."""


def main() -> None:
    """Runs it all and writes table, figure and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, one thread, no large CT")
    parser.add_argument("--output", type=Path, default=ROOT / "Testing/evaluation/bench")
    arguments = parser.parse_args()
    report = measure(arguments.quick)
    write_report(report, arguments.output)


def measure(quick: bool) -> dict[str, Any]:
    """Every figure of the report."""
    image, name = source()
    report: dict[str, Any] = {
        "machine": describe(),
        "peaks": peaks(),
        "quick": quick,
        "command": "make bench" + (" QUICK=1" if quick else ""),
        "source": name,
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(quick):
            say(f"{case['name']}: {case['threads']} thread(s), {case['quality']}")
            with written(
                image if case["size"] is None else scan(case["size"], case["mm"]), Path(folder)
            ) as ct:
                report["runs"].append(case | segmented(ct, Path(folder), case))
    report |= rivals(report["runs"], image)
    return report


def cases(quick: bool) -> Iterator[dict[str, Any]]:
    """What ours is run on."""
    as_is = {
        "name": "as acquired",
        "size": None,
        "mm": None,
        "slices": 0,
        "threads": 1,
        "quality": "standard",
    }
    yield as_is | {"counted": True}
    for slices in (75, 300) if quick else SLICES:
        for threads in (1,) if quick else THREADS:
            size = (SIDE, SIDE, slices)
            yield as_is | {
                "name": f"{SIDE} x {SIDE} x {slices}",
                "size": size,
                "mm": SIDE_MM,
                "slices": slices,
                "threads": threads,
                "counted": False,
            }
    for quality in ("standard",) if quick else QUALITIES:
        for threads in (1,) if quick else THREADS:
            yield as_is | {
                "name": f"as acquired, {quality}",
                "quality": quality,
                "threads": threads,
                "counted": False,
            }
    if not quick:
        size, mm = LARGE
        yield as_is | {
            "name": " x ".join(map(str, size)),
            "size": size,
            "mm": mm,
            "threads": 2,
            "counted": False,
        }


@contextmanager
def written(image: sitk.Image, folder: Path) -> Iterator[Path]:
    """The CT as a file, for as long as it is needed."""
    path = folder / "ct.nrrd"
    sitk.WriteImage(image, str(path), True)
    try:
        yield path
    finally:
        path.unlink()


def segmented(ct: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """One cold run in a process of its own."""
    figures = folder / "figures.json"
    threads = str(case["threads"])
    command = [
        sys.executable,
        "-m",
        "Testing.bench.one_run",
        str(ct),
        str(folder / "out.seg.nrrd"),
        str(figures),
    ]
    command += ["--quality", case["quality"], "--threads", threads, *(["--count"] if case["counted"] else [])]
    limits = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
    environment = os.environ | dict.fromkeys(limits, threads) | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return json.loads(figures.read_text())


def rivals(runs: list[dict[str, Any]], image: sitk.Image) -> dict[str, Any]:
    """The others on the CT as acquired, and single steps side by side."""
    import torch

    from Testing.bench import rivals as others

    torch.set_num_threads(1)
    say("the others' networks, one pass each")
    lung_ml = runs[0]["facts"]["lung_ml"]
    x, y, z = image.GetSize()
    spacing = image.GetSpacing()[::-1]
    patches = round(lung_ml / PUBLISHED_PATCH_ML / FILLING)
    costs = others.networks((z, y, x), (spacing[0], spacing[1], spacing[2]), patches)
    say("single steps side by side")
    pairs = [
        {"name": name, "usual": asdict(usual), "ours": asdict(ours)} for name, usual, ours in others.pairs()
    ]
    return {"rivals": [asdict(each) | {"total_cpu": each.total_cpu} for each in costs], "steps": pairs}


def say_totals(run: dict[str, Any]) -> None:
    """What a run took, at once: the whole bench takes long."""
    total = run["total"]
    say(
        f"  {total['cpu_seconds']:.1f} processor s, {total['seconds']:.1f} s by the clock, "
        f"{total['peak_mb']:.0f} MB"
    )


def say(what: str) -> None:
    """How far it is."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
