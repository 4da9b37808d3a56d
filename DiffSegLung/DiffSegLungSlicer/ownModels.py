"""The user's own models: where they lie, how they compare with their base, and how one is deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import slicer

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.models import store as models
from DiffSegLungLib.training.run_files import PICTURE

VARIABLE = "DIFFSEGLUNG_MODELS"
RUN_SUFFIX = ".run"


def use() -> Path:
    """The folder of the user's own models; where the user has not set one it lies beside Slicer's settings.

    The library and the child processes find it in the environment.
    """
    folder = models.own_store()
    if folder is None:
        folder = Path(slicer.app.slicerUserSettingsFilePath).parent / "DiffSegLung" / "models"
        os.environ[VARIABLE] = str(folder)
    return folder


def runFolder(name: str) -> Path:
    """Where the fine-tuning that makes this model keeps its state."""
    return use() / f"{name}{RUN_SUFFIX}"


def everyOne() -> list[models.ModelInfo]:
    """The models in the user's own folder."""
    store = use()
    return [info for info in models.list_models() if info.folder.parent == store]


def comparison(name: str) -> dict:
    """How a fine-tuned model compares with its base on the patients held back.

    Returns:
        name, parent, verdict (sentences, the first sums up), worse, ended (why before its time, or empty),
        before and after (figures), and picture (path, or None).

    Raises:
        UnusableInputError: the model was not made by fine-tuning.
        MissingPartError: there is no such model.
    """
    folder = models.find(name)
    description = json.loads((folder / models.DESCRIPTION).read_text(encoding="utf-8"))
    metrics = description.get("metrics", {})
    if "parent" not in description or not metrics.get("verdict"):
        raise UnusableInputError(f"{name} was not fine-tuned: there is no base to compare it with.")
    picture = folder / PICTURE
    return {
        "name": description["name"],
        "parent": description["parent"]["name"],
        "verdict": metrics["verdict"],
        "worse": "WORSE" in metrics["verdict"][0],
        "ended": metrics.get("ended", ""),
        "before": metrics["before"],
        "after": metrics["after"],
        "picture": picture if picture.is_file() else None,
    }


def verify(name: str) -> models.ModelInfo:
    """Checks each file of a model against its checksum."""
    return models.verify(name)


def remove(name: str) -> None:
    """Deletes one of the user's own models, and what its fine-tuning has left.

    Raises:
        UnusableInputError: it came with DiffSegLung, or it cannot be deleted.
        MissingPartError: there is no such model.
    """
    folder = models.remove(name)
    shutil.rmtree(folder.with_name(f"{folder.name}{RUN_SUFFIX}"), ignore_errors=True)
