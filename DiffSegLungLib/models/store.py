"""The store of models: a folder each, with checksums; never a pickle.

A model folder holds ``weights.safetensors`` (the student), ``mixture.safetensors`` (projection and reference
mixture), perhaps ``lungs.safetensors`` (the lung network) and ``tissues.safetensors`` (the diffusion U-Net
that decides), ``model.json`` (what they mean, and their SHA-256) and ``MODEL_CARD.md``.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from DiffSegLungLib.decision.model import Model, ModelInfo
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.models.format import DESCRIPTION, FORMAT, LUNGS, MIXTURE, TISSUES, WEIGHTS, sha256_of

DEFAULT = "2026-12-ct10"
LARGEST_BYTES = 500_000_000
LARGEST_DESCRIPTION = 10_000_000
"""Characters."""


def search_folders() -> list[Path]:
    """Folders that hold models: the user's own first, then the shipped ones (source tree, Slicer, wheel)."""
    own = own_store()
    return [own, *shipped_folders()] if own else shipped_folders()


def shipped_folders() -> list[Path]:
    """Where the models of this distribution may lie: the source tree and Slicer, or a wheel."""
    package = Path(__file__).resolve().parent.parent
    return [package.parent / "Resources" / "models", package / "shipped_models"]


def own_store() -> Path | None:
    """The folder of the user's own models, None without one."""
    folder = os.environ.get("DIFFSEGLUNG_MODELS")
    return Path(folder) if folder else None


def list_models() -> list[ModelInfo]:
    """Every sound-looking model at hand; of two with one name the first found counts.

    A folder whose description cannot be read is left out: it must not hide the others.
    """
    found: dict[str, ModelInfo] = {}
    for folder in model_folders():
        with suppress(MissingPartError):
            info = _info(folder, _describe(folder))
            found.setdefault(info.name, info)
    return list(found.values())


def model_folders() -> list[Path]:
    """Every folder that calls itself a model, sound or not, in the order of the search.

    A hidden one is half made: a fine-tuning writes there before it puts the model in its place.
    """
    parents = [parent for parent in search_folders() if parent.is_dir()]
    found = [file.parent for parent in parents for file in sorted(parent.glob(f"*/{DESCRIPTION}"))]
    return [folder for folder in found if not folder.name.startswith(".")]


def find(name_or_folder: str | None = None) -> Path:
    """The folder of a model, by name or path; the default one without a name.

    Raises:
        MissingPartError: there is none of that name, or its description cannot be read.
    """
    if name_or_folder and (Path(name_or_folder) / DESCRIPTION).is_file():
        return Path(name_or_folder)
    wanted = name_or_folder or DEFAULT
    for info in list_models():
        if info.name == wanted:
            return info.folder
    for folder in model_folders():
        if folder.name == wanted:
            _describe(folder)  # says what is wrong with it
    known = ", ".join(info.name for info in list_models()) or "none"
    raise MissingPartError(f"no model {wanted!r}: models at hand: {known}; see 'diffseglung models list'")


def verify(name_or_folder: str | None = None) -> ModelInfo:
    """Check that each file of a model is there and has the checksum that ``model.json`` states."""
    folder = find(name_or_folder)
    description = _describe(folder)
    optional = [file for part, file in (("lungs", LUNGS), ("tissue_network", TISSUES)) if part in description]
    for name in (WEIGHTS, MIXTURE, *optional):
        _verify_file(folder / name, description.get("sha256", {}).get(name, ""))
    return _info(folder, description)


def digest_of(info: ModelInfo) -> str:
    """SHA-256 of a model's description: of its rules and, by their checksums, of all its files."""
    return sha256_of(info.folder / DESCRIPTION)


def load(name_or_folder: str | None = None, device: str = "cpu") -> Model:
    """Verify and load a model."""
    from DiffSegLungLib.models import storage

    info = verify(name_or_folder)
    return storage.read_model(info, _describe(info.folder), device)


def remove(name: str) -> Path:
    """Delete a model of the user's own store.

    Args:
        name: as ``list_models`` tells it.

    Returns:
        The folder that was there.

    Raises:
        UnusableInputError: it came with DiffSegLung, or it cannot be deleted.
        MissingPartError: there is no such model, or no store of the user's own.
    """
    store = own_store()
    mine = [folder for folder in model_folders() if folder.parent == store and not _is_shipped(folder)]
    for folder in mine:
        if name in (folder.name, _name_of(folder)):
            _delete(folder)
            return folder
    if name in {info.name for info in list_models()}:
        raise UnusableInputError(
            f"Model {name!r} came with DiffSegLung; only models of your own are removed."
        )
    where = str(store) if store else "DIFFSEGLUNG_MODELS, which is not set"
    raise MissingPartError(f"No model {name!r} in your own store, {where}; see 'diffseglung models list'.")


def _is_shipped(folder: Path) -> bool:
    """Also where the user's own store is set to the folder of the shipped models."""
    return folder.parent.resolve() in [parent.resolve() for parent in shipped_folders()]


def _name_of(folder: Path) -> str:
    try:
        return _info(folder, _describe(folder)).name
    except MissingPartError:
        return folder.name


def _delete(folder: Path) -> None:
    """A link is taken away, not what it points to."""
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnusableInputError(
            f"Cannot remove {folder}: {reason}. Close what uses it, or check rights."
        ) from error


def _verify_file(file: Path, expected: str) -> None:
    remedy = "install the extension or the package again"
    if not file.is_file():
        raise MissingPartError(f"the model has no {file.name} in {file.parent}; {remedy}")
    if file.stat().st_size > LARGEST_BYTES:
        raise MissingPartError(f"{file} is larger than any model of this project; {remedy}")
    if sha256_of(file) != expected:
        raise MissingPartError(f"{file} is damaged (its SHA-256 is not the one in {DESCRIPTION}); {remedy}")


def _describe(folder: Path) -> dict[str, Any]:
    try:
        with (folder / DESCRIPTION).open(encoding="utf-8") as stream:
            description = json.loads(stream.read(LARGEST_DESCRIPTION))
    except (OSError, ValueError) as error:
        raise MissingPartError(
            f"{folder / DESCRIPTION} cannot be read ({error}); install the model again"
        ) from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise MissingPartError(
            f"{folder} holds a model of another format than {FORMAT}; get one for this version"
        )
    return description


def _info(folder: Path, description: dict[str, Any]) -> ModelInfo:
    decides = TISSUES if "tissue_network" in description else WEIGHTS
    checksum = str(description.get("sha256", {}).get(decides, ""))
    return ModelInfo(
        str(description.get("name", folder.name)), folder, str(description.get("version", "")), checksum
    )
