"""Many small cases through Ray while a worker is killed: nothing is lost, nothing done twice.

    python Testing/cohort/ray_benchmark.py --cases 200 --workers 2 --output Testing/evaluation/cohort.json

Ends with status 1 if a case is lost, failed or doubled, or if the local engine's table or any of its
segmentations differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import psutil

from DiffSegLungLib.app.cohort.command import CASES_FOLDER
from DiffSegLungLib.app.cohort.jobs import SEGMENTATION
from DiffSegLungLib.io.atomic import write_json
from Testing.cohort.small_cases import SmallCases

OPTIONS = ("--quality", "fast", "--threads", "1", "--device", "cpu", "--progress", "json")
ACTOR = "ray::_Actor"
"""How Ray calls the process of a worker of ours that is at work."""


def main() -> int:
    """Run the benchmark, print and write what was found."""
    parser = argparse.ArgumentParser(description="Cohort of small phantoms through Ray with a killed worker.")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    compared_help = "cases that the local engine does, too (default: all)"
    parser.add_argument("--compared", type=int, help=compared_help)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compared = arguments.compared or arguments.cases
        found = benchmark(Path(folder), arguments.cases, arguments.workers, compared)
    write_json(arguments.output, found)
    print(json.dumps(found, indent=2))
    return 0 if found["held"] else 1


def benchmark(folder: Path, cases: int, workers: int, compared: int) -> dict[str, Any]:
    """The whole benchmark in a folder of its own."""
    scans, masks = folder / "in", folder / "masks"
    SmallCases().write(scans, masks, cases)
    started = time.perf_counter()
    ended, killed = run_and_kill(scans, masks, folder / "ray", workers, kill_at=cases // 2)
    seconds = time.perf_counter() - started
    for scan in sorted(scans.iterdir())[compared:]:
        scan.unlink()
    local = [sys.executable, "-m", "DiffSegLungLib", "batch", str(scans), str(folder / "local")]
    local += ["--lungs", str(masks), "--workers", str(workers), *OPTIONS]
    started = time.perf_counter()
    subprocess.run(local, check=True, stdout=subprocess.DEVNULL)
    found = account(folder, cases, ended, killed, compared)
    times = {"seconds": round(seconds, 1), "seconds_local": round(time.perf_counter() - started, 1)}
    return {"cases": cases, "workers": workers, "cores": os.cpu_count(), **times, **found}


def run_and_kill(
    scans: Path, masks: Path, output: Path, workers: int, kill_at: int
) -> tuple[Counter[str], int]:
    """Run the cohort on Ray and kill a worker at work once so many cases have ended.

    Returns:
        How often each case was reported as ended, and how many workers were killed.
    """
    words = ["batch", str(scans), str(output), "--lungs", str(masks), "--engine", "ray"]
    command = [sys.executable, "-m", "DiffSegLungLib", *words, "--workers", str(workers), *OPTIONS]
    ended: Counter[str] = Counter()
    killed = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record = json.loads(line) if line.startswith("{") else {}
            if record.get("stage") == "cohort":
                ended[record["message"].split("; ")[1].split()[0]] += 1
            if not killed and sum(ended.values()) >= kill_at:
                time.sleep(1.0)  # into the next case
                killed = kill_one_worker(process.pid)
    if process.returncode:
        raise RuntimeError(f"batch ended with status {process.returncode}")
    return ended, killed


def kill_one_worker(driver: int) -> int:
    """End one of the cohort's own workers without warning, as a lost node would.

    Args:
        driver: process that runs the cohort; only its descendants are looked at.

    Returns:
        How many were killed, 0 or 1.
    """
    for process in psutil.Process(driver).children(recursive=True):
        if process.cmdline() and process.cmdline()[0].startswith(ACTOR):
            process.kill()
            return 1
    return 0


def segmentations(output: Path) -> dict[str, str]:
    """SHA-256 of the segmentation of each case that is whole."""
    files = sorted((output / CASES_FOLDER).glob(f"*/{SEGMENTATION}"))
    return {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def account(folder: Path, cases: int, ended: Counter[str], killed: int, compared: int) -> dict[str, Any]:
    """What the run left, set against what it should have."""
    output = folder / "ray"
    manifest = json.loads((output / "batch.json").read_text(encoding="utf-8"))
    table = pandas.read_csv(output / "cases.csv")
    through_ray = pandas.read_csv(output / "measures.csv")
    local = pandas.read_csv(folder / "local" / "measures.csv")
    same = through_ray[through_ray["case"].isin(local["case"])].reset_index(drop=True)
    theirs = segmentations(folder / "local")
    equal = same.equals(local) and theirs.items() <= segmentations(output).items()
    found = {
        "killed_workers": killed,
        "tried_again": manifest["tried_again"],
        "done": int((table["state"] == "done").sum()),
        "lost": cases - len(table),
        "doubled": sum(count - 1 for count in ended.values()) + int(table["case"].duplicated().sum()),
        "failed": len(manifest["failed"]),
        "median_seconds_a_case": float(table["seconds"].median()),
        "peak_mb_of_a_worker": float(table["peak_mb"].max()),
        "megabytes_written": round(sum(f.stat().st_size for f in output.rglob("*") if f.is_file()) / 1e6, 1),
        "cases_compared": compared,
        "equals_local": bool(equal and local["case"].nunique() == len(theirs) == compared),
    }
    whole = found["done"] == cases == sum(ended.values()) and not found["lost"] and not found["doubled"]
    held = whole and killed == 1 and len(found["tried_again"]) == 1 and found["equals_local"]
    return {**found, "held": bool(held)}


if __name__ == "__main__":
    sys.exit(main())
