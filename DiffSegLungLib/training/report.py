"""The report of a training run: losses, collapse, what the embedding has learnt, and samples."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.io.atomic import atomic_path, write_text
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.run_files import CHECKPOINT, COLLAPSED, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from DiffSegLungLib.training.trainer import Trainer

REPORT = "report.html"
CURVES = (
    ("Noise loss", ("noise", "held_back")),
    ("InfoNCE", ("info_nce",)),
    ("Regression of the teacher's numbers", ("regression",)),
    ("Collapse: spread", ("spread",)),
    ("Collapse: uniformity", ("uniformity",)),
)
NAMES = {"noise": "training", "held_back": "patients held back"}
SAMPLE_STEPS = 25
MEANING = {
    "losses.png": f"Thin: each step; thick: mean of 25. A spread below {COLLAPSED:g} is a collapse: all "
    "regions look alike to the embedding.",
    "embedding.png": "Each dot is a region of lung of patients held back (of those trained on, where none "
    "are), on the first two principal components of its embedding.",
    "samples.png": "Above real patches, below what the averaged network draws inside the same lungs.",
}


def write_run_report(run: Path, store: Path | None, output: Path, progress: Progress = silent) -> Path:
    """Write ``report.html`` and its pictures.

    Args:
        run: the run's folder.
        store: its store, for embedding and samples; without it only the losses are drawn.
        output: takes the files.
        progress: told of each picture.

    Returns:
        The report.
    """
    output.mkdir(parents=True, exist_ok=True)
    log = read_log(run)
    facts = checkpoint.load_facts(run / CHECKPOINT)
    progress("report", 0.0, "losses")
    _save(output / "losses.png", draw_losses(log, int(facts["settings"]["stage_two"])))
    pictures = ["losses.png"]
    if store is not None:
        trainer = _trainer(run, store, facts)
        progress("report", 0.2, "embedding")
        _save(output / "embedding.png", draw_embedding(trainer))
        progress("report", 0.5, "samples")
        _save(output / "samples.png", draw_samples(trainer))
        pictures += ["embedding.png", "samples.png"]
    write_text(output / REPORT, _page(output, pictures, log, facts))
    progress("report", 1.0)
    return output / REPORT


def _trainer(run: Path, store: Path, facts: dict[str, Any]) -> Trainer:
    from DiffSegLungLib.training.store import load_store
    from DiffSegLungLib.training.trainer import Trainer, stored_settings

    split = facts.get("split", {"train": None, "held_back": []})
    held_back = load_store(store, split["held_back"]) if split["held_back"] else []
    trainer = Trainer(
        load_store(store, split["train"]), stored_settings(facts["settings"]), run, "cpu", held_back
    )
    trainer.resume()
    return trainer


def draw_losses(log: Sequence[dict[str, float]], stage_two: int) -> Figure:
    """One chart a figure that the log has."""
    from matplotlib.figure import Figure

    curves = [(title, names) for title, names in CURVES if any(names[0] in line for line in log)]
    figure = Figure(figsize=(9, 2.4 * max(len(curves), 1)), layout="constrained")
    for axes, (title, names) in zip(
        figure.subplots(max(len(curves), 1), 1, squeeze=False)[:, 0], curves, strict=False
    ):
        for name in names:
            _draw_curve(
                axes, [(line["step"], line[name]) for line in log if name in line], NAMES.get(name, "")
            )
        axes.set_title(title, fontsize=9, loc="left")
        if log and stage_two <= log[-1]["step"]:
            axes.axvline(stage_two, color="grey", lw=0.8, ls=":")
        if title.endswith("spread"):
            axes.axhline(COLLAPSED, color="red", lw=0.8, ls=":")
        if len(names) > 1:
            axes.legend(fontsize=8)
    return figure


def _draw_curve(axes: Axes, points: list[tuple[float, float]], label: str) -> None:
    if not points:
        return
    steps, values = np.array(points).T
    width = min(25, len(values))
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    (line,) = axes.plot(steps[width - 1 :], smooth, lw=1.6, label=label)
    axes.plot(
        steps, values, lw=0.5, alpha=0.4, color=line.get_color(), marker="." if len(values) < 30 else ""
    )


def draw_embedding(trainer: Trainer) -> Figure:
    """Regions on two principal components of the embedding, coloured by three teacher numbers."""
    from matplotlib.figure import Figure

    from DiffSegLungLib.representation.radiomics import FEATURE_NAMES
    from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches
    from DiffSegLungLib.training.judge import cut_regions, draw_held_back, region_embeddings

    settings = trainer.settings
    patches = trainer.held_back or draw_held_back(trainer.sampler.patients, settings.patch)
    hu, mask = (cut_regions(one, settings.region) for one in (patches.hu, patches.mask))
    kept = mask.mean(axis=(1, 2, 3)) >= 0.3
    embeddings = region_embeddings(trainer.average, patches, settings.region)[kept]
    centred = embeddings - embeddings.mean(axis=0)
    _, scale, rows = np.linalg.svd(centred, full_matrices=False)
    places = centred @ rows[:2].T
    teacher = teacher_for_patches(hu[kept], mask[kept] > 0.5)
    share = 100 * scale[:2] ** 2 / max(float((scale**2).sum()), 1e-12)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("hu_mean", "hu_sd", "glcm_homogeneity"), strict=True):
        values = teacher[:, FEATURE_NAMES.index(name)]
        dots = axes.scatter(*places.T, c=values, s=8, cmap="viridis")
        figure.colorbar(dots, ax=axes)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(f"component 1 ({share[0]:.0f} %)", fontsize=8)
        axes.set_ylabel(f"component 2 ({share[1]:.0f} %)", fontsize=8)
    return figure


def draw_samples(trainer: Trainer, count: int = 8) -> Figure:
    """Real patches and samples of the averaged network in the same lungs."""
    from matplotlib.figure import Figure

    from DiffSegLungLib.training.board import patches_of, samples_picture

    picture = samples_picture(trainer, patches_of(trainer, count), SAMPLE_STEPS)
    figure = Figure(figsize=(1.5 * count, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure


def _save(path: Path, figure: Figure) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=80)


def _page(folder: Path, pictures: list[str], log: Sequence[dict[str, float]], facts: dict[str, Any]) -> str:
    """One file that any browser opens: the pictures are in it."""
    split = facts.get("split", {})
    last = {name: line[name] for line in log for name in line if name != "step"}
    rows = {
        "steps": f"{facts['step']} of {facts['settings']['steps']}",
        "CT trained on": len(split.get("train", [])),
        "CT held back": len(split.get("held_back", [])),
        **{f"last {name}": f"{value:.4g}" for name, value in last.items()},
        **{name: value for name, value in facts["settings"].items() if name != "steps"},
    }
    table = "".join(f"<tr><td>{html.escape(str(k))}<td>{html.escape(str(v))}" for k, v in rows.items())
    body = "".join(
        f"<h2>{name.removesuffix('.png').capitalize()}</h2><p>{MEANING[name]}</p>"
        f'<img src="data:image/png;base64,{base64.b64encode((folder / name).read_bytes()).decode()}">'
        for name in pictures
    )
    style = (
        "body{font-family:sans-serif;max-width:60em;margin:2em auto}img{max-width:100%}td{padding-right:2em}"
    )
    collapsed = last.get("spread", 1.0) < COLLAPSED
    warning = "<p><b>The embedding has collapsed.</b></p>" if collapsed else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Training run</title><style>{style}</style>"
        f"<h1>Training run</h1>{warning}{body}<h2>Settings</h2><table>{table}</table></html>\n"
    )
