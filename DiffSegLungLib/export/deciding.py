"""Which weights of a manifest decide: those of the network, in models that have one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NETWORK, STUDENT = "tissues.safetensors", "weights.safetensors"
"""Names in ``sha256`` of a manifest's model; the second decides with a mixture."""


def deciding_weights(model: Mapping[str, Any]) -> tuple[str, str]:
    """Name and SHA-256 of the weights that decide, of a manifest's model; empty if unknown."""
    checksums = model.get("sha256")
    known = checksums if isinstance(checksums, Mapping) else {}
    return next(((name, str(known[name])) for name in (NETWORK, STUDENT) if name in known), ("", ""))
