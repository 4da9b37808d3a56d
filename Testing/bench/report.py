"""Table, figure and JSON of a bench, ratios first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from DiffSegLungLib.outputs import write_json, write_text

TARGETS = (
    # name of the case, threads, seconds, MB
    ("as acquired", 1, 20.0, None),
    ("512 x 512 x 300", 2, 45.0, 3000.0),
    ("768 x 768 x 1000", 2, None, 8000.0),
)
SHOWN = {"start": "import", "read": "read", "lungs": "lungs", "grid": "grid, vessels", "features": "features"}


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Writes ``bench.json``, ``bench.md`` and ``bench.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(report, folder / "bench.png")
    write_text(folder / "bench.md", "\n".join(text(report)) + "\n")
    write_json(folder / "bench.json", json.loads(json.dumps(report)))


def text(report: dict[str, Any]) -> Iterator[str]:
    """The page, line by line."""
    machine, best = report["machine"], report["peaks"]
    yield "# Speed and memory\n"
    yield f"Written by `{report['command']}` on {report['source']}. Processor seconds of all threads: on a busy machine"
    yield (
        "the clock says little (load "
        + ", ".join(map(str, machine["load"]))
        + "). GPU: "
        + machine["gpu"]
        + ".\n"
    )
    yield f"{machine['processor']}, {machine['cores']} cores, bfloat16 instructions: {machine['bfloat16']};"
    yield f"torch {machine['torch']}. One core at most: {best['fp32_gflops']} GFLOP/s fp32, {best['bf16_gflops']} GFLOP/s"
    yield f"bf16 (big matrix products), {best['copy_gbps']} GB/s (big copy).\n"
    yield from _beside_others(report)
    yield from _targets(report)
    yield from _stages(report)
    yield from _runs(report)
    yield "![Stages, growth and memory](bench.png)"


def _beside_others(report: dict[str, Any]) -> Iterator[str]:
    own = report["runs"][0]["total"]["cpu_seconds"]
    yield "## Beside others\n\nThe others' networks alone, random weights, one pass timed times the passes needed.\n"
    yield "| what | ratio to ours, whole | processor s | passes | s a pass | GFLOP a pass |\n|---|---|---|---|---|---|"
    yield f"| **DiffSegLung, cold start to file** | **1** | {own:.0f} | | | |"
    for each in report["rivals"]:
        yield (
            f"| {each['name']} | {each['total_cpu'] / own:.1f} | {each['total_cpu']:.0f} | {each['passes']} "
            f"| {each['cpu_seconds']:.2f} | {each['gflop']:.0f} |"
        )
    yield "\n| step: usual \\| ours | ratio | usual, s | ours, s |\n|---|---|---|---|"
    for step in report["steps"]:
        usual, ours = step["usual"]["cpu_seconds"], step["ours"]["cpu_seconds"]
        yield f"| {step['name'].replace('|', chr(92) + '|')} | {usual / ours:.1f} | {usual:.2f} | {ours:.2f} |"
    yield ""


def _targets(report: dict[str, Any]) -> Iterator[str]:
    yield "## Targets\n\n| CT | threads | target | processor s | clock s | peak MB |\n|---|---|---|---|---|---|"
    for name, threads, seconds, memory in TARGETS:
        for run in report["runs"]:
            if run["name"] == name and run["threads"] in (threads, 1):
                wanted = " and ".join(
                    f"{value:.0f} {unit}"
                    for value, unit in ((seconds, "s"), (memory, "MB"))
                    if value is not None
                )
                total = run["total"]
                yield (
                    f"| {name} | {run['threads']} | {wanted} | {total['cpu_seconds']:.1f} | {total['seconds']:.1f} "
                    f"| {total['peak_mb']:.0f} |"
                )
    yield ""


def _stages(report: dict[str, Any]) -> Iterator[str]:
    run, best = report["runs"][0], report["peaks"]
    yield f"## By stage: {report['source']}, as acquired, one thread\n"
    yield "Bytes: each stage's large arrays read or written once, the least that any way of doing it moves. Percent of"
    yield "peak: what the matrix product or the copy above would need for it, of the time taken.\n"
    yield "| stage | processor s | share | GFLOP | % of matrix peak | MB | % of copy peak | peak MB |\n|---|---|---|---|---|---|---|---|"
    total = run["total"]["cpu_seconds"]
    for name, stage in run["stages"].items():
        seconds = max(stage["cpu_seconds"], 1e-3)
        gflop, moved = stage.get("gflop", 0.0), run["facts"]["bytes"].get(name, 0) / 1e6
        arithmetic = 100 * gflop / best["fp32_gflops"] / seconds
        copying = 100 * moved / 1e3 / best["copy_gbps"] / seconds
        yield (
            f"| {SHOWN.get(name, name)} | {seconds:.2f} | {100 * seconds / total:.0f} % | {gflop:.1f} | {arithmetic:.0f} "
            f"| {moved:.0f} | {copying:.1f} | {stage['peak_mb']:.0f} |"
        )
    yield ""


def _runs(report: dict[str, Any]) -> Iterator[str]:
    yield "## Every run\n\n| CT | quality | threads | processor s | clock s | peak MB | processor ms a slice |\n|---|---|---|---|---|---|---|"
    for run in report["runs"]:
        total = run["total"]
        each = f"{1000 * total['cpu_seconds'] / run['slices']:.0f}" if run["slices"] else ""
        yield (
            f"| {run['name']} | {run['quality']} | {run['threads']} | {total['cpu_seconds']:.1f} | {total['seconds']:.1f} "
            f"| {total['peak_mb']:.0f} | {each} |"
        )
    yield "\nAccuracy of each quality: `make evaluate`, or `diffseglung evaluate --quality fast`, where it is offered.\n"


def draw(report: dict[str, Any], path: Path) -> None:
    """Stages beside others, growth with the slices, memory over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (stages, growth, memory) = pyplot.subplots(1, 3, figsize=(16, 5), layout="constrained")
    _draw_beside(report, stages)
    _draw_growth(report, growth)
    _draw_memory(report, memory)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_beside(report: dict[str, Any], axes: Any) -> None:
    left = 0.0
    for name, stage in report["runs"][0]["stages"].items():
        axes.barh("DiffSegLung, whole", stage["cpu_seconds"], left=left, label=SHOWN.get(name, name))
        left += stage["cpu_seconds"]
    for rival in report["rivals"]:
        axes.barh(rival["name"].replace(" (", "\n(").replace(": ", ":\n"), rival["total_cpu"], color="0.6")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("processor seconds, one thread (log)")
    axes.set_title("The CT as acquired; grey: the network alone")
    axes.legend(fontsize="x-small", loc="lower right")


def _draw_growth(report: dict[str, Any], axes: Any) -> None:
    swept = [run for run in report["runs"] if run["slices"]]
    for threads in sorted({run["threads"] for run in swept}):
        runs = sorted((run for run in swept if run["threads"] == threads), key=lambda run: run["slices"])
        slices = [run["slices"] for run in runs]
        axes.plot(
            slices,
            [run["total"]["cpu_seconds"] for run in runs],
            "o-",
            label=f"processor s, {threads} thread(s)",
        )
        axes.plot(
            slices, [run["total"]["seconds"] for run in runs], "o--", label=f"clock s, {threads} thread(s)"
        )
    axes.set_xlabel("slices of 512 x 512 over the same lungs")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.set_title("Growth with the slices")
    axes.legend(fontsize="small")


def _draw_memory(report: dict[str, Any], axes: Any) -> None:
    shown = [run for run in report["runs"] if run["threads"] == 1 or not run["slices"]]
    for run in shown:
        if run["quality"] == "standard" and run["memory"]:
            seconds, held, _ = zip(*run["memory"], strict=True)
            axes.plot([100 * second / seconds[-1] for second in seconds], held, label=run["name"])
    axes.set_xlabel("% of the run's time")
    axes.set_ylabel("MB held")
    axes.set_ylim(bottom=0)
    axes.set_title("Memory over time")
    axes.legend(fontsize="small")
