"""The end of a fine-tuning: the new model folder, and how it compares with the base on patients held back."""

from __future__ import annotations

import math
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
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import REPORTED, TISSUES
from DiffSegLungLib.training.finetune import (
    DRIFT_POINTS,
    FinetuneOutcome,
    FinetuneRequest,
    ended_because,
    trained_steps,
)
from DiffSegLungLib.training.healthy import HealthyLung
from DiffSegLungLib.training.judge import draw_held_back, noise_loss, teacher_r2
from DiffSegLungLib.training.reference import ReferenceSettings, fit_reference
from DiffSegLungLib.training.run_files import PICTURE
from DiffSegLungLib.training.store import Patient
from DiffSegLungLib.version import __version__

CARD = "MODEL_CARD.md"
MOST_SEGMENTED = 2
"""CT held back that both models segment: each takes minutes."""
CLEAR_NOISE, CLEAR_R2, CLEAR_POINTS = 0.002, 0.01, 0.5
"""Changes smaller than these are called none."""
HELD_BACK = "on the patients held back"

Sources = tuple[list[Path], list[Path]]
Patients = tuple[list[Patient], list[Patient]]


def finish(
    request: FinetuneRequest,
    base: models.Model,
    student: Student,
    sources: Sources,
    patients: Patients,
    progress: Progress,
) -> FinetuneOutcome:
    """Write the new model folder; it appears when it is complete.

    Args:
        request: what was asked for.
        base: the base model.
        student: the fine-tuned network.
        sources: CT trained on, and CT held back.
        patients: the same, prepared.
        progress: told of each step.

    Returns:
        The folder, the figures of both models, and what they say.
    """
    partial = request.target.with_name(f".{request.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        facts = _facts(request, base, patients)
        _write(partial, facts, base, student, _reference(request, base, student, sources[0], progress))
        tuned = models.load(str(partial), next(base.student.parameters()).device.type)
        before, after = _compare(base, tuned, patients[1], sources[1], partial, part(progress, 0.3, 1.0))
        verdict = judge(before, after, request.stage)
        ended = ended_because(request.run_folder)
        before, after = _rounded(before), _rounded(after)
        facts["metrics"] = {"before": before, "after": after, "verdict": verdict, "ended": ended}
        _write_description(partial, facts, base)
        write_text(partial / CARD, _card(facts))
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


def _facts(request: FinetuneRequest, base: models.Model, patients: Patients) -> dict[str, Any]:
    """What model.json says; neither names nor identifiers of CT or patients."""
    trained, held_back = patients
    litres = sum(float(one.mask.sum()) for one in trained + held_back) * base.spacing**3 / 1e6
    return {
        "name": request.name,
        "version": __version__,
        "licence": request.licence,
        "tissues": {tissue.key: tissue.label for tissue in TISSUES},
        "parent": {"name": base.info.name, "version": base.info.version, "sha256": base.info.sha256},
        "training_data": {
            "ct": len(trained) + len(held_back),
            "patients": len({one.person for one in trained + held_back}),
            "lung_litres": round(litres, 1),
        },
        "split": {
            "seed": request.seed,
            "trained_on": {"ct": len(trained), "patients": len({one.person for one in trained})},
            "held_back": {"ct": len(held_back), "patients": len({one.person for one in held_back})},
        },
        "architecture": base.description["architecture"],
        "hu_window": base.description["hu_window"],
        "spacing_mm": base.spacing,
        "sharpness": base.sharpness,
        "training": {
            "stage": request.stage,
            "steps": trained_steps(request.run_folder),
            "mixture": "refitted" if request.refit_mixture else "of the parent",
        },
        "metrics": {},
    }


def _reference(
    request: FinetuneRequest, base: models.Model, student: Student, sources: list[Path], progress: Progress
) -> tuple[Any, Any, Any]:
    """Projection, mixture and labels: the base model's, or fitted on the CT that were trained on."""
    if not request.refit_mixture:
        return base.projection, base.mixture, base.labels
    settings = ReferenceSettings(base.spacing, sharpness=base.sharpness, seed=request.seed)
    on_processor = student.to("cpu")
    fitting = part(progress, 0.0, 0.3)
    return fit_reference(on_processor, sources, base.plan, settings, base.rule, fitting)


def _write(
    folder: Path, facts: dict[str, Any], base: models.Model, student: Student, reference: tuple[Any, Any, Any]
) -> None:
    storage.write_student(folder, {key: value.cpu() for key, value in student.state_dict().items()})
    storage.write_mixture(folder, *reference)
    if "lungs" in base.description:  # it is not trained here, and goes along
        shutil.copyfile(base.info.folder / models.LUNGS, folder / models.LUNGS)
        facts["lungs"] = base.description["lungs"]
    _write_description(folder, facts, base)


def _write_description(folder: Path, facts: dict[str, Any], base: models.Model) -> None:
    storage.write_description(folder, facts, base.plan, base.rule, base.fusion, base.regions)


# --- the comparison --------------------------------------------------------------------------------------


def _compare(
    base: models.Model,
    tuned: models.Model,
    held_back: list[Patient],
    sources: list[Path],
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of both models; the picture of the first CT goes into the folder."""
    patches = draw_held_back(held_back, base.plan.window)
    both: list[dict[str, Any]] = [
        {
            "noise_loss": _known(noise_loss(model.student, patches)),
            "teacher_r2": _known(teacher_r2(model.student, patches, min(16, *base.plan.window))),
            # Each with its own mixture: what a reader of a healthy CT would see.
            "healthy_phantom_diseased_percent": _known(HealthyLung(model).diseased_percent(model.student)),
            "held_back_ct": [],
        }
        for model in (base, tuned)
    ]
    chosen = sources[:MOST_SEGMENTED]
    for number, source in enumerate(chosen):
        progress("compare", number / len(chosen), f"CT {number + 1} of {len(chosen)}, with both models")
        device = next(base.student.parameters()).device.type
        first = segment(source, model=str(base.info.folder), device=device)
        # The same lungs for both: only the tissues are compared.
        second = segment(source, lungs=first.lungs, model=str(tuned.info.folder), device=device)
        results = (first, second)
        for figures, result in zip(both, results, strict=True):
            figures["held_back_ct"].append(_volumes(result))
        if number == 0:
            draw_before_after(folder / PICTURE, results[0], results[1])
    return both[0], both[1]


def _known(value: float) -> float | None:
    """JSON has no name for what is no number."""
    return value if math.isfinite(value) else None


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


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


def judge(before: dict[str, Any], after: dict[str, Any], stage: str) -> list[str]:
    """What the figures say, in sentences; the first one sums up.

    Args:
        before: figures of the base model.
        after: figures of the new one.
        stage: what was trained.
    """
    healthy = "healthy_phantom_diseased_percent"
    drift = (after[healthy] or 0.0) - (before[healthy] or 0.0)
    lines = [_summary(before, after, stage, drift)]
    lines.append(_line("Noise loss", "noise_loss", before, after, "lower is better"))
    lines.append(
        _line("Radiomics told by the embedding, R2", "teacher_r2", before, after, "higher is better")
    )
    lines.append(_line("Healthy phantom called diseased, %", healthy, before, after, "lower is better"))
    if drift > DRIFT_POINTS:
        lines.append("It sees far more disease in a healthy lung than its base does.")
    shares = [[one["disease_percent"] for one in side["held_back_ct"]] for side in (before, after)]
    for old, new in zip(*shares, strict=True):
        lines.append(f"Disease in a CT held back: {old:.1f} % before, {new:.1f} % after.")
    return lines


def _summary(before: dict[str, Any], after: dict[str, Any], stage: str, drift: float) -> str:
    """One sentence; what got clearly worse weighs more than what got better."""
    gains = {
        "noise": _gain(before["noise_loss"], after["noise_loss"], CLEAR_NOISE, lower_is_better=True),
        "texture": _gain(before["teacher_r2"], after["teacher_r2"], CLEAR_R2),
    }
    if drift > CLEAR_POINTS or min(gains[aim] for aim in _aims(stage)) < 0:
        return f"The new model is WORSE than its base {HELD_BACK}: do not use it without looking why."
    if min(gains.values()) < 0:
        return f"The new model is better in one respect and worse in another {HELD_BACK}: look below first."
    kind = "better than" if max(gains.values()) > 0 else "about as good as"
    return f"The new model is {kind} its base {HELD_BACK}."


def _aims(stage: str) -> tuple[str, ...]:
    """What a stage should improve; pure diffusion leaves the embedding's head as it was."""
    return {"diffusion": ("noise",), "distillation": ("texture",)}.get(stage, ("noise", "texture"))


def _gain(before: float | None, after: float | None, clear: float, lower_is_better: bool = False) -> int:
    """1 better, -1 worse, 0 about the same or not known."""
    if before is None or after is None or abs(after - before) < clear:
        return 0
    return 1 if (after < before) == lower_is_better else -1


def _line(name: str, key: str, before: dict[str, Any], after: dict[str, Any], sense: str) -> str:
    old, new = (f"{side[key]:.3f}" if side[key] is not None else "unknown" for side in (before, after))
    return f"{name}: {old} before, {new} after ({sense})."


def _card(facts: dict[str, Any]) -> str:
    data, split, training = facts["training_data"], facts["split"], facts["training"]
    lines = [
        f"# Model card: {facts['name']}",
        "",
        "Research weights; not for clinical use.",
        "",
        f"- fine-tuned from {facts['parent']['name']} with DiffSegLung {facts['version']}",
        f"- licence: {facts['licence']}",
        f"- data: {data['ct']} CT of {data['patients']} patients, {data['lung_litres']} litres of lung; "
        f"{split['held_back']['patients']} patients held back",
        f"- {training['steps']} steps, stage {training['stage']}; mixture {training['mixture']}",
        f"- ended early: {facts['metrics']['ended'] or 'no'}",
        "",
        "## Compared with its parent",
        "",
        *(f"- {line}" for line in facts["metrics"]["verdict"]),
        "",
        f"Picture of a CT held back: `{PICTURE}`. It shows a patient: delete it before you share the model.",
    ]
    return "\n".join(lines) + "\n"


__all__ = ["PICTURE", "draw_before_after", "finish", "judge"]
