"""What the figures of a fine-tuned model say beside its base's, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from DiffSegLungLib.tissues import TISSUES
from DiffSegLungLib.training.guard import DRIFT_POINTS

CLEAR_NOISE, CLEAR_R2, CLEAR_POINTS, CLEAR_DICE = 0.002, 0.01, 0.5, 0.01
"""Changes smaller than these are called none."""
CLEAR_SQUARED_NOISE = 0.02
"""Of the mean squared error of the noise, which is about 1."""
CLEAR_TISSUE_DICE = 0.05
"""Of a single tissue, which is painted less often."""
HELD_BACK = "on the patients held back"
HEALTHY_PHANTOM = "healthy_phantom_diseased_percent"
DRIFT = "healthy_now_diseased_percent"
NAMES = {tissue.key: tissue.name for tissue in TISSUES}


def judge(before: dict[str, Any], after: dict[str, Any], stage: str) -> list[str]:
    """Of a student and its mixture; the first sentence sums up.

    Args:
        before: figures of the base model.
        after: figures of the new one.
        stage: what was trained.
    """
    drift = (after[HEALTHY_PHANTOM] or 0.0) - (before[HEALTHY_PHANTOM] or 0.0)
    gains = {
        "noise": gain(before["noise_loss"], after["noise_loss"], CLEAR_NOISE, lower_is_better=True),
        "texture": gain(before["teacher_r2"], after["teacher_r2"], CLEAR_R2),
    }
    aims = [gains[aim] for aim in _aims(stage)]
    lines = [
        _summary(list(gains.values()), aims, drift),
        _line("Noise loss", "noise_loss", before, after, "lower is better"),
        _line("Radiomics told by the embedding, R2", "teacher_r2", before, after, "higher is better"),
        _line("Healthy phantom called diseased, %", HEALTHY_PHANTOM, before, after, "lower is better"),
    ]
    if drift > DRIFT_POINTS:
        lines.append("It sees far more disease in a healthy lung than its base does.")
    return lines + _of_ct(before, after)


def judge_tissues(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Of a network that decides; the first sentence sums up.

    Args:
        before: figures of the base model.
        after: figures of the new one.
    """
    noise = gain(before["noise_loss"], after["noise_loss"], CLEAR_SQUARED_NOISE, lower_is_better=True)
    dice = gain(before["mean_dice"], after["mean_dice"], CLEAR_DICE)
    tissues = [
        gain(before["dice"][key], after["dice"][key], CLEAR_TISSUE_DICE) for key in sorted(before["dice"])
    ]
    drift = after[DRIFT] or 0.0
    # Noise that is told better makes no better model: it decides nothing.
    lines = [_summary([min(noise, 0), dice, *tissues], [dice], drift)]
    lines.append(_line("Painted disease, mean Dice", "mean_dice", before, after, "higher is better"))
    lines += [
        _line(f"Painted {NAMES[key].lower()}, Dice", key, before["dice"], after["dice"])
        for key in before["dice"]
    ]
    lines.append(_line("Noise loss", "noise_loss", before, after, "lower is better"))
    lines.append(
        f"Of unpainted lung that its base calls healthy it calls {drift:.1f} % diseased; of what the base "
        f"calls diseased {after['diseased_now_healthy_percent'] or 0.0:.1f} % healthy."
    )
    return lines + _of_ct(before, after)


def _summary(gains: Sequence[int], aims: Sequence[int], drift: float) -> str:
    """One sentence; what got clearly worse weighs more than what got better."""
    if drift > CLEAR_POINTS or min(aims) < 0:
        return f"The new model is WORSE than its base {HELD_BACK}: do not use it without looking why."
    if min(gains) < 0:
        return f"The new model is better in one respect and worse in another {HELD_BACK}: look below first."
    kind = "better than" if max(gains) > 0 else "about as good as"
    return f"The new model is {kind} its base {HELD_BACK}."


def _aims(stage: str) -> tuple[str, ...]:
    """What a stage should improve; pure diffusion leaves the embedding's head as it was."""
    return {"diffusion": ("noise",), "distillation": ("texture",)}.get(stage, ("noise", "texture"))


def gain(before: float | None, after: float | None, clear: float, lower_is_better: bool = False) -> int:
    """1 better, -1 worse, 0 about the same or not known."""
    if before is None or after is None or abs(after - before) < clear:
        return 0
    return 1 if (after < before) == lower_is_better else -1


def _line(name: str, key: str, before: dict[str, Any], after: dict[str, Any], sense: str = "") -> str:
    old, new = (f"{side[key]:.3f}" if side[key] is not None else "unknown" for side in (before, after))
    return f"{name}: {old} before, {new} after{f' ({sense})' if sense else ''}."


def _of_ct(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The CT that both models segmented."""
    shares = [[one["disease_percent"] for one in side["held_back_ct"]] for side in (before, after)]
    return [
        f"Disease in a CT held back: {old:.1f} % before, {new:.1f} % after."
        for old, new in zip(*shares, strict=True)
    ]
