"""Which kind of fine-tuning a base model asks for."""

from __future__ import annotations

from typing import Any

from DiffSegLungLib.models import store as models
from DiffSegLungLib.training.request import FinetuneRequest
from DiffSegLungLib.training.student_tuning import StudentTuning
from DiffSegLungLib.training.tissue_tuning import TissueTuning
from DiffSegLungLib.training.tuning import Tuning


def tuning_of(request: FinetuneRequest, base: models.Model) -> Tuning[Any]:
    """The kind that the base model is of.

    Raises:
        UnusableInputError: the request asks for what that kind has not.
    """
    if base.tissues is not None:
        return TissueTuning(request, base)
    return StudentTuning(request, base)
