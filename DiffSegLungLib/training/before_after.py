"""The end of a fine-tuning: the new model folder, and how it compares with the base on patients held back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.report.slices import (
    Chest,
    bare_picture,
    choose_cuts,
    overlay_picture,
    plane_millimetres,
)
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.io.atomic import write_text
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.progress import Progress, part
from DiffSegLungLib.tissues import REPORTED, TISSUES
from DiffSegLungLib.training.guard import ended_because
from DiffSegLungLib.training.request import FinetuneOutcome
from DiffSegLungLib.training.run_files import PICTURE
from DiffSegLungLib.training.tuning import OnePrepared, Tuning
from DiffSegLungLib.version import __version__

CARD = "MODEL_CARD.md"
MOST_SEGMENTED = 2
"""CT held back that both models segment: each takes minutes."""

Sources = tuple[list[Path], list[Path]]
People = tuple[list[OnePrepared], list[OnePrepared]]


def finish(
    tuning: Tuning[OnePrepared], sources: Sources, people: People[OnePrepared], progress: Progress
) -> FinetuneOutcome:
    """Write the new model folder; it appears when it is complete.

    Args:
        tuning: knows what was asked for, the base model and what was learnt.
        sources: CT trained on, and CT held back.
        people: the same, prepared.
        progress: told of each step.

    Returns:
        The folder, the figures of both models, and what they say.
    """
    request = tuning.request
    partial = request.target.with_name(f".{request.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        facts = _facts(tuning, people)
        _write(partial, facts, tuning, sources[0], part(progress, 0.0, 0.3))
        tuned = models.load(str(partial), _device(tuning.base))
        before, after = _compare(tuning, tuned, people[1], sources[1], part(progress, 0.3, 1.0))
        verdict = tuning.judge(before, after)
        ended = ended_because(request.run_folder)
        before, after = _rounded(before), _rounded(after)
        facts["metrics"] = {"before": before, "after": after, "verdict": verdict, "ended": ended}
        _write_description(partial, facts, tuning.base)
        write_text(partial / CARD, _card(facts, tuning))
        _put_in_place(partial, request.target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("compare", 1.0, verdict[0])
    return FinetuneOutcome(request.target, before, after, tuple(verdict))


def _put_in_place(partial: Path, target: Path) -> None:
    try:
        partial.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnusableInputError(f"Cannot write {target}: {reason}. Give another --name.") from error


# --- the folder ------------------------------------------------------------------------------------------


def _facts(tuning: Tuning[OnePrepared], people: People[OnePrepared]) -> dict[str, Any]:
    """What model.json says; neither names nor identifiers of CT or patients."""
    (trained, held_back), request, base = people, tuning.request, tuning.base
    parent = {"name": base.info.name, "version": base.info.version, "sha256": tuning.base_sha256}
    litres = round(tuning.litres(trained + held_back), 1)
    return {
        "name": request.name,
        "version": __version__,
        "licence": request.licence,
        "tissues": {tissue.key: tissue.label for tissue in TISSUES},
        "parent": parent,
        "training_data": {**_counted(trained + held_back), "lung_litres": litres},
        "split": {
            "seed": request.seed,
            "trained_on": _counted(trained),
            "held_back": _counted(held_back),
        },
        "architecture": base.description["architecture"],
        "hu_window": base.description["hu_window"],
        "spacing_mm": base.spacing,
        "sharpness": base.sharpness,
        "training": tuning.training_facts(),
        "metrics": {},
    }


def _counted(people: list[OnePrepared]) -> dict[str, int]:
    return {"ct": len(people), "patients": len({one.person for one in people})}


def _device(base: models.Model) -> str:
    return next(base.student.parameters()).device.type


def _write(
    folder: Path,
    facts: dict[str, Any],
    tuning: Tuning[OnePrepared],
    trained_on: list[Path],
    progress: Progress,
) -> None:
    base = tuning.base
    folder.mkdir(parents=True)
    tuning.write_networks(folder, facts, trained_on, progress)
    if "lungs" in base.description:  # it is not trained here, and goes along
        shutil.copyfile(base.info.folder / models.LUNGS, folder / models.LUNGS)
        facts["lungs"] = base.description["lungs"]
    _write_description(folder, facts, base)


def _write_description(folder: Path, facts: dict[str, Any], base: models.Model) -> None:
    storage.write_description(folder, facts, base.plan, base.rule, base.fusion, base.regions)


# --- the comparison --------------------------------------------------------------------------------------


def _compare(
    tuning: Tuning[OnePrepared],
    tuned: models.Model,
    held_back: list[OnePrepared],
    sources: list[Path],
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of both models; the picture of the first CT goes into the new one's folder."""
    both = tuning.figures(tuned, held_back)
    for figures in both:
        figures["held_back_ct"] = []
    chosen = sources[:MOST_SEGMENTED]
    device = _device(tuning.base)
    for number, source in enumerate(chosen):
        progress("compare", number / len(chosen), f"CT {number + 1} of {len(chosen)}, with both models")
        first = segment(source, model=str(tuning.base.info.folder), device=device)
        # The same lungs for both: only the tissues are compared.
        second = segment(source, lungs=first.lungs, model=str(tuned.info.folder), device=device)
        for figures, result in zip(both, (first, second), strict=True):
            figures["held_back_ct"].append(_volumes(result))
        if number == 0:
            draw_before_after(tuned.info.folder / PICTURE, first, second)
    return both


def _rounded(figures: Any) -> Any:
    """For the eye; also within dicts."""
    if isinstance(figures, dict):
        return {key: _rounded(value) for key, value in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


def _volumes(result: Result) -> dict[str, float]:
    row = result.measures.loc["whole lung"]
    volumes = {f"{tissue.key}_ml": round(float(row[f"{tissue.key}_ml"]), 1) for tissue in REPORTED}
    return volumes | {"disease_percent": round(float(row["disease_percent"]), 2)}


def draw_before_after(path: Path, before: Result, after: Result) -> None:
    """One row a slice: the CT, the base model's tissues, the new model's."""
    from matplotlib.figure import Figure

    volume = before.volume
    first = Chest.crop(volume.hu, before.label_array, volume.spacing)
    second = replace(first, labels=Chest.crop(volume.hu, after.label_array, volume.spacing).labels)
    cuts = choose_cuts(first, axial=3)[:4]
    figure = Figure(figsize=(12, 3.3 * len(cuts)), layout="constrained", facecolor="black")
    for row, cut in zip(figure.subplots(len(cuts), 3, squeeze=False), cuts, strict=True):
        height, width = (round(1.5 * length) for length in plane_millimetres(first, cut.axis))
        pictures = (
            bare_picture(first, cut, (height, width)),
            overlay_picture(first, cut, (height, width)),
            overlay_picture(second, cut, (height, width)),
        )
        titles = (cut.short_title(first), "before", "after")
        for axes, picture, title in zip(row, pictures, titles, strict=True):
            axes.imshow(picture)
            axes.set_title(title, color="white", fontsize=10)
            axes.set_axis_off()
    figure.savefig(path, dpi=80)


def _card(facts: dict[str, Any], tuning: Tuning[Any]) -> str:
    data, split = facts["training_data"], facts["split"]
    lines = [
        f"# Model card: {facts['name']}",
        "",
        "Research weights; not for clinical use.",
        "",
        f"- fine-tuned from {facts['parent']['name']} with DiffSegLung {facts['version']}",
        f"- licence: {facts['licence']}",
        f"- data: {data['ct']} CT of {data['patients']} patients, {data['lung_litres']} litres of lung; "
        f"{split['held_back']['patients']} patients held back",
        f"- {tuning.told(facts['training'])}",
        f"- ended early: {facts['metrics']['ended'] or 'no'}",
        "",
        "## Compared with its parent",
        "",
        *(f"- {line}" for line in facts["metrics"]["verdict"]),
        "",
        f"Picture of a CT held back: `{PICTURE}`. It shows a patient: delete it before you share the model.",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["PICTURE", "draw_before_after", "finish"]
