"""Table, figure and JSON of a bench, ratios first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from DiffSegLungLib.io.atomic import write_json, write_text

TARGETS = (
    # name of the case, threads, seconds, MB
    ("as acquired, standard", 2, 20.0, None),
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
    load = ", ".join(map(str, machine["load"]))
    yield f"Written by `{report['command']}` on {report['source']}. Processor seconds are of all threads: on"
    yield f"a busy machine the clock says little (load {load}). GPU: {machine['gpu']}.\n"
    yield f"{machine['processor']}, {machine['cores']} cores, bfloat16 instructions: {machine['bfloat16']};"
    yield f"torch {machine['torch']}. One core at most: {best['fp32_gflops']} GFLOP/s fp32,"
    yield f"{best['bf16_gflops']} GFLOP/s bf16 (big matrix products), {best['copy_gbps']} GB/s (big copy).\n"
    yield from _beside_others(report)
    yield from _targets(report)
    yield from _stages(report)
    yield from _runs(report)
    yield "![Stages, growth and memory](bench.png)"


def _table(*columns: str) -> str:
    return "| " + " | ".join(columns) + " |\n|" + "---|" * len(columns)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _beside_others(report: dict[str, Any]) -> Iterator[str]:
    own = uncounted(report["runs"])["total"]["cpu_seconds"]
    yield "## Beside others\n"
    yield "The others' networks alone, random weights, one pass timed times the passes that the CT needs.\n"
    yield _table("what", "ratio to ours, whole", "processor s", "passes", "s a pass", "GFLOP a pass")
    yield _row("**DiffSegLung, cold start to file**", "**1**", f"{own:.0f}", "", "", "")
    for each in report["rivals"]:
        total, one = each["total_cpu"], each["cpu_seconds"]
        numbers = (
            f"{total / own:.1f}",
            f"{total:.0f}",
            f"{each['passes']}",
            f"{one:.2f}",
            f"{each['gflop']:.0f}",
        )
        yield _row(each["name"], *numbers)
    yield ""
    yield _table("step: usual way", "ours", "ratio", "usual, s", "ours, s")
    for step in report["steps"]:
        usual, ours = step["usual"]["cpu_seconds"], step["ours"]["cpu_seconds"]
        names = [part.strip() for part in step["name"].split("|")]
        yield _row(*names, f"{usual / ours:.1f}", f"{usual:.2f}", f"{ours:.2f}")
    yield ""


def _targets(report: dict[str, Any]) -> Iterator[str]:
    yield "## Targets\n"
    yield _table("CT", "threads", "target", "processor s", "clock s", "peak MB")
    for name, threads, seconds, memory in TARGETS:
        limits = ((seconds, "s"), (memory, "MB"))
        wanted = " and ".join(f"{value:.0f} {unit}" for value, unit in limits if value is not None)
        for run in report["runs"]:
            if run["name"] == name and run["threads"] in (threads, 1):
                yield _row(name, str(run["threads"]), wanted, *_totals(run))
    yield ""


def uncounted(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The CT as acquired on one thread: counting its operations would make it half as slow again."""
    return next(run for run in runs if run["name"] == "as acquired, standard" and run["threads"] == 1)


def _totals(run: dict[str, Any]) -> tuple[str, str, str]:
    total = run["total"]
    return f"{total['cpu_seconds']:.1f}", f"{total['seconds']:.1f}", f"{total['peak_mb']:.0f}"


def _stages(report: dict[str, Any]) -> Iterator[str]:
    run, counted, best = uncounted(report["runs"]), report["runs"][0]["stages"], report["peaks"]
    yield f"## By stage: {report['source']}, as acquired, one thread\n"
    yield "GFLOP were counted in a run of their own. MB moved: each stage's large arrays read or written"
    yield "once, the least that any way moves. Percent: what the matrix product (the features' in bf16 where"
    yield "it has instructions, all else in fp32) or the copy above would need, of the time taken.\n"
    halved = report["machine"]["bfloat16"]
    percent = ("% of matrix peak", "MB moved", "% of copy peak")
    yield _table("stage", "processor s", "share", "GFLOP", *percent, "peak MB")
    total = run["total"]["cpu_seconds"]
    for name, stage in run["stages"].items():
        seconds = max(stage["cpu_seconds"], 1e-3)
        gflop, moved = counted[name]["gflop"], run["facts"]["bytes"].get(name, 0) / 1e6
        peak = best["bf16_gflops" if halved and name == "features" else "fp32_gflops"]
        arithmetic = 100 * gflop / peak / seconds
        copying = 100 * moved / 1e3 / best["copy_gbps"] / seconds
        shares = (f"{100 * seconds / total:.0f} %", f"{gflop:.1f}", f"{arithmetic:.0f}")
        amounts = (f"{moved:.0f}", f"{copying:.1f}", f"{stage['peak_mb']:.0f}")
        yield _row(SHOWN.get(name, name), f"{seconds:.2f}", *shares, *amounts)
    yield ""


def _runs(report: dict[str, Any]) -> Iterator[str]:
    yield "## Every run\n"
    yield _table("CT", "quality", "threads", "processor s", "clock s", "peak MB", "processor ms a slice")
    for run in report["runs"]:
        slices = run["slices"]
        each = f"{1000 * run['total']['cpu_seconds'] / slices:.0f}" if slices else ""
        yield _row(run["name"], run["quality"], str(run["threads"]), *_totals(run), each)
    yield ""


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
    for name, stage in uncounted(report["runs"])["stages"].items():
        axes.barh("DiffSegLung, whole", stage["cpu_seconds"], left=left, label=SHOWN.get(name, name))
        left += stage["cpu_seconds"]
    for rival in report["rivals"]:
        axes.barh(rival["name"].replace(" (", "\n(").replace(": ", ":\n"), rival["total_cpu"], color="0.6")
    axes.invert_yaxis()
    axes.set_xlabel("processor seconds, one thread")
    axes.set_title("The CT as acquired; grey: the network alone")
    axes.legend(fontsize="x-small", loc="upper right")


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
            label = f"{run['name']}, {run['threads']} thread(s)"
            axes.plot([100 * second / seconds[-1] for second in seconds], held, label=label)
    axes.set_xlabel("% of the run's time")
    axes.set_ylabel("MB held")
    axes.set_ylim(bottom=0)
    axes.set_title("Memory over time")
    axes.legend(fontsize="small")
