"""What lies in the folder of a training run; without torch, for those who only look at a run."""

from __future__ import annotations

import json
from pathlib import Path

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
BEST = "best.safetensors"
"""The best weights so far of a fine-tuning."""
PLAN = "finetune.json"
"""What a fine-tuning was asked for."""
STOP = "stop"
"""The file that asks a fine-tuning to end at the next step."""
SAMPLES = "samples.png"
"""What the network draws at present, beside real patches."""
PICTURE = "before_after.png"
"""In a fine-tuned model's folder: its base's tissues and its own on a CT held back."""
TRAINING_STAGE = "train"
"""The stage of the progress records while steps are made."""
COLLAPSED = 0.2
"""Spread of the embedding below which all regions look alike to it."""


def read_log(folder: Path) -> list[dict[str, float]]:
    """The figures of each step of a run; one half written is left out."""
    if not (folder / LOG).exists():
        return []
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]
