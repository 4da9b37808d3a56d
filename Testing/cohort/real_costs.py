"""What a real CT costs in a cohort: processor seconds, memory, bytes read and written.

    python -m Testing.cohort.real_costs CT... --output Testing/evaluation/cohort_costs.json

Each quality runs twice, each time in one worker: the first CT alone, then all.  The difference is what a CT
more costs once a worker is warm; the rest is the start.  Processor seconds: a clock tells of neighbours.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas

from DiffSegLungLib.outputs import write_json

QUALITIES = ("fast", "standard")


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description="What a real CT costs in a cohort.")
    parser.add_argument("scans", metavar="CT", nargs="+", type=Path, help="two CT files or more")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if len(arguments.scans) < 2:
        parser.error("give two CT or more: what one more costs is a difference")
    found: dict[str, Any] = {"cts": len(arguments.scans), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        for quality in QUALITIES:
            found[quality] = cost(arguments.scans, quality, Path(folder) / quality)
        found["with report"] = cost(arguments.scans, QUALITIES[0], Path(folder) / "report", "--report")
    found["megabytes_read_a_ct"] = megabytes(arguments.scans)
    write_json(arguments.output, found)


def cost(scans: list[Path], quality: str, folder: Path, *options: str) -> dict[str, float]:
    """Processor seconds of the first CT and of one more, peak memory, and megabytes written a CT."""
    alone = batch(scans[:1], quality, folder / "alone", *options)
    all_of_them = batch(scans, quality, folder / "all", *options)
    again = batch(scans, quality, folder / "all", *options, "--resume")
    output = folder / "all" / "out"
    files = [path for path in (output / "cases").rglob("*") if path.is_file()]
    return {
        "processor_seconds_of_the_first": round(alone, 1),
        "processor_seconds_of_one_more": round((all_of_them - alone) / (len(scans) - 1), 1),
        "processor_seconds_when_all_is_whole": round(again, 1),
        "peak_mb": float(pandas.read_csv(output / "cases.csv")["peak_mb"].max()),
        "megabytes_written_a_ct": round(megabytes(files) * len(files) / len(scans), 2),
        "files_a_ct": len(files) / len(scans),
    }


def batch(scans: list[Path], quality: str, folder: Path, *options: str) -> float:
    """Run the command, and return the processor seconds of it and its workers."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for scan in scans:
        link = folder / "in" / scan.name
        if not link.exists():
            link.symlink_to(scan.resolve())
    words = ["batch", str(folder / "in"), str(folder / "out"), "--quality", quality, "--device", "cpu"]
    words += ["--threads", "1", "--progress", "none", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "DiffSegLungLib", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def megabytes(files: list[Path]) -> float:
    """Mean size."""
    return round(sum(path.stat().st_size for path in files) / 1e6 / max(len(files), 1), 2)


if __name__ == "__main__":
    main()
