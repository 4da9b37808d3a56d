"""DiffSegLung: diseased lung on CT, segmented and measured without annotations.

    from DiffSegLungLib import segment
    result = segment("ct.nrrd")

Research software; not for clinical use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from DiffSegLungLib import forks as _forks  # noqa: F401  looks at the process before anything is loaded
from DiffSegLungLib.version import __version__

if TYPE_CHECKING:
    from DiffSegLungLib.export.result import Result

__all__ = ["__version__", "segment"]


def segment(source: Any, **options: Any) -> Result:
    """Segment one CT; see :func:`DiffSegLungLib.pipeline.segment` for the options.

    The pipeline and torch are loaded at the first call, so that importing this package stays quick.
    """
    from DiffSegLungLib.pipeline import segment as run

    return run(source, **options)
