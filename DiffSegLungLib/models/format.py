"""The files of a model folder, by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

FORMAT = 1
WEIGHTS, MIXTURE, DESCRIPTION = "weights.safetensors", "mixture.safetensors", "model.json"
LUNGS = "lungs.safetensors"
TISSUES = "tissues.safetensors"


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
