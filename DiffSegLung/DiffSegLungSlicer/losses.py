"""The losses of a fine-tuning as charts of the scene, and the warning of a collapse."""

from __future__ import annotations

from itertools import accumulate

import slicer

from DiffSegLungLib.training.run_files import COLLAPSED

from . import charts, results

MEAN_OF = 20
"""A step's noise loss hangs on the noise that was drawn: the mean of so many steps is shown."""
ROLE = "DiffSegLung.losses"
TRAINED, HELD_BACK = (31, 119, 180), (214, 39, 40)
CONTRAST, REGRESSION = (44, 160, 44), (148, 103, 189)


def hasCollapsed(log: list[dict[str, float]]) -> bool:
    """Whether at the last step all regions looked alike to the embedding."""
    return bool(log) and log[-1].get("spread", 1.0) < COLLAPSED


def show(name: str, log: list[dict[str, float]]) -> list:
    """Brings the charts of a run up to date, and makes them anew where the scene has them no longer.

    Args:
        name: of the model to be.
        log: of the run.

    Returns:
        The chart of the noise loss, and that of what is learnt beside: the distillation, or the painted
        tissues of a network that decides; none before it has two points.
    """
    if len(log) < 2:
        return []
    noised = [step for step in log if "noise" in step]
    found = [_showNoise(name, noised)] if len(noised) > 1 else []
    distilled = [step for step in log if "info_nce" in step]
    if found and len(distilled) > 1:
        found.append(_showDistillation(name, distilled))
    painted = [step for step in log if "cross-entropy" in step]
    if found and len(painted) > 1:
        found.append(_showTissues(name, painted))
    return found


def _showNoise(name: str, log: list[dict[str, float]]):
    noise = [step["noise"] for step in log]
    table = _node("vtkMRMLTableNode", name, "noise table")
    charts.fillTable(table, {"step": [float(step["step"]) for step in log], "noise": runningMean(noise)})
    lines = [charts.Line(table, "noise", f"training, mean of {MEAN_OF}", TRAINED)]
    judged = [step for step in log if "held_back" in step]
    if judged:
        points = _node("vtkMRMLTableNode", name, "held-back table")
        columns = {key: [float(step[key]) for step in judged] for key in ("step", "held_back")}
        charts.fillTable(points, columns)
        lines.append(charts.Line(points, "held_back", "patients held back", HELD_BACK))
    return _chart(name, "noise", lines, "Noise loss")


def _showDistillation(name: str, log: list[dict[str, float]]):
    table = _node("vtkMRMLTableNode", name, "distillation table")
    columns = {key: [float(step[key]) for step in log] for key in ("step", "info_nce", "regression")}
    charts.fillTable(table, columns)
    lines = [
        charts.Line(table, "info_nce", "InfoNCE", CONTRAST),
        charts.Line(table, "regression", "regression", REGRESSION),
    ]
    return _chart(name, "distillation", lines, "Distillation loss")


def _showTissues(name: str, log: list[dict[str, float]]):
    table = _node("vtkMRMLTableNode", name, "tissues table")
    columns = {key: runningMean([step[key] for step in log]) for key in ("cross-entropy", "dice")}
    charts.fillTable(table, {"step": [float(step["step"]) for step in log], **columns})
    lines = [
        charts.Line(table, "cross-entropy", f"cross-entropy, mean of {MEAN_OF}", CONTRAST),
        charts.Line(table, "dice", f"Dice loss, mean of {MEAN_OF}", REGRESSION),
    ]
    return _chart(name, "tissues", lines, "Loss of painted tissues")


def runningMean(values: list[float]) -> list[float]:
    """Of the last `MEAN_OF` values, at the beginning of as many as there are."""
    sums = [0.0, *accumulate(values)]
    ends = range(1, len(sums))
    return [(sums[end] - sums[max(end - MEAN_OF, 0)]) / min(end, MEAN_OF) for end in ends]


def _chart(name: str, what: str, lines: list[charts.Line], title: str):
    chart = _node("vtkMRMLPlotChartNode", name, what)
    charts.fillChart(chart, "step", lines, lineWidth=2)
    charts.describeChart(chart, f"{title}, {name}", "step", "loss")
    return chart


def _node(className: str, name: str, what: str):
    """The node of a run in the scene, made if it is not there."""
    mark = f"{ROLE}/{name}/{what}"
    for node in slicer.util.getNodesByClass(className):
        if node.GetAttribute(results.ATTRIBUTE) == mark:
            return node
    node = slicer.mrmlScene.AddNewNodeByClass(className, f"{name} {what}")
    node.SetAttribute(results.ATTRIBUTE, mark)
    return node
