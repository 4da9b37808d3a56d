"""Which patients are trained on and which are held back: by patient, stored, and kept when CT are added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from DiffSegLungLib.io.atomic import write_json

FILE = "split.json"
SHARE = 0.2
"""Share of the patients that is held back."""


def split_patients(
    patients: Iterable[str], share: float = SHARE, seed: int = 0, known: dict[str, bool] | None = None
) -> dict[str, bool]:
    """Hold back a share of the patients, chosen by chance but always the same.

    Args:
        patients: identifiers; repeated ones count once.
        share: of the patients, held back; one at least of two or more, none of a single one, and at least one
            stays for training.
        seed: of the chance.
        known: an earlier split; it stays as it is.

    Returns:
        For each patient, whether it is held back.
    """
    known = known or {}
    names = sorted(set(patients))
    split = {name: known[name] for name in names if name in known}
    wanted = min(max(round(share * len(names)), 1), len(names) - 1) if share > 0 else 0
    # A digest and not a shuffle: a patient's place does not depend on who else is there.
    others = sorted((name for name in names if name not in split), key=lambda name: _digest(name, seed))
    missing = max(wanted - sum(split.values()), 0)
    split |= {name: place < missing for place, name in enumerate(others)}
    return split


def _digest(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def write_split(folder: Path, split: dict[str, bool], seed: int) -> None:
    """Write ``split.json``."""
    trained = [name for name, held_back in split.items() if not held_back]
    held_back = [name for name, is_held_back in split.items() if is_held_back]
    write_json(folder / FILE, {"seed": seed, "train": trained, "held_back": held_back})


def read_split(folder: Path) -> dict[str, bool]:
    """The stored split; empty where there is none."""
    if not (folder / FILE).is_file():
        return {}
    stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return dict.fromkeys(stored["train"], False) | dict.fromkeys(stored["held_back"], True)


def describe_split(split: dict[str, bool]) -> str:
    """One line for the reader."""
    held_back = [name for name, is_held_back in split.items() if is_held_back]
    names = f" ({', '.join(held_back)})" if held_back else ""
    return f"{len(split) - len(held_back)} patients to train on, {len(held_back)} held back{names}"
