"""The command ``correct``: strokes that somebody painted are spread over the whole CT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.app.commands import (
    WRITING_STARTS,
    SegmentRequest,
    check_request,
    write_results,
)
from DiffSegLungLib.app.measure_command import read_manifest
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.deciding import deciding_weights
from DiffSegLungLib.io.files import bare_name
from DiffSegLungLib.progress import Progress, part
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD

if TYPE_CHECKING:
    from DiffSegLungLib.decision.field import Field
    from DiffSegLungLib.export.result import Result
    from DiffSegLungLib.io.segmentations import Source
    from DiffSegLungLib.io.volume import Volume

AGAIN = "Nothing was kept of the run: the network reads the CT again"
OTHER_WEIGHTS = (
    "{} was made by other weights ({:.8}) than those at hand ({:.8}): give theirs with --model, or segment "
    "the CT anew."
)


@dataclass(frozen=True, kw_only=True)
class CorrectRequest(SegmentRequest):
    """One call of ``correct``; what it shares with ``segment`` is as there.

    Attributes:
        result: the segmentation that a run made, as it is to be corrected.
        strokes: what was painted.
        run: manifest of that run; None for the one beside the segmentation, if there is one.
        field: what that run kept with ``--save-field``; None reads the CT again.
    """

    result: Path
    strokes: Path
    run: Path | None = None
    field: Path | None = None

    @property
    def inputs(self) -> list[Path]:
        """What is read and must not be overwritten."""
        return [*super().inputs, *filter(None, (self.result, self.strokes, self.run, self.field))]

    @property
    def run_path(self) -> Path | None:
        """The run's manifest, as given or beside the segmentation."""
        beside = self.result.with_name(bare_name(self.result) + ".manifest.json")
        return self.run or (beside if beside.is_file() else None)


def correct_to_files(request: CorrectRequest, progress: Progress) -> Result:
    """Correct a segmentation by strokes and write all that was asked for.

    Args:
        request: inputs, parameters, outputs.
        progress: told of the whole work.

    Returns:
        The corrected result.

    Raises:
        DiffSegLungError: unusable input or output, something missing, or cancelled.
    """
    check_request(request)
    run = read_manifest(request.run_path) if request.run_path else {}
    from DiffSegLungLib.io.segmentations import load_tissues
    from DiffSegLungLib.io.strokes import load_strokes
    from DiffSegLungLib.io.volume import load_volume
    from DiffSegLungLib.quantify.measures import complete

    volume = load_volume(request.source, request.series, request.name)
    strokes = load_strokes(request.strokes, volume)
    tissues, said = load_tissues(request.result, volume)
    made = _made(request, volume, run, part(progress, 0.0, WRITING_STARTS))
    labels, _ = complete(tissues, made.sides, volume.spacing)
    result = made.correct(strokes, labels)
    result.manifest["warnings"] += said
    progress("writing", WRITING_STARTS, str(request.output))
    write_results(request, result)
    progress("done", 1.0)
    return result


def _made(request: CorrectRequest, volume: Volume, run: dict[str, Any], progress: Progress) -> Result:
    """What the run decided, from what it kept or by reading the CT again."""
    from DiffSegLungLib.models.store import verify

    made_by = deciding_weights(run.get("model", {}))[1]
    if request.field is None:
        at_hand = verify(request.model or run.get("model", {}).get("name"))
        _require_same(request.result, made_by, at_hand.sha256)
        return _read_again(request, run, at_hand.name, progress)
    from DiffSegLungLib.decision.field import load

    field = load(request.field)
    _require_same(request.result, made_by, field.model)
    return result_of_field(field, volume, run, request.regions)


def _require_same(result: Path, made_by: str, at_hand: str) -> None:
    """Refuses other weights; without a manifest nobody can tell."""
    if made_by and made_by != at_hand:
        raise UnusableInputError(OTHER_WEIGHTS.format(result.name, made_by, at_hand))


def _read_again(request: CorrectRequest, run: dict[str, Any], model: str, progress: Progress) -> Result:
    """The run once more, as its manifest says it was."""
    from DiffSegLungLib.pipeline import segment

    parameters = run.get("parameters", {})
    if parameters.get("lungs") == "given" and request.lungs is None:
        raise UnusableInputError(
            f"{request.result.name} was made with a lung mask that was given: give it with --lungs."
        )
    quality = parameters.get("quality")
    progress("read", 0.0, AGAIN)
    return segment(
        request.source,
        lungs=request.lungs,
        regions=request.regions,
        model=request.model or model,
        device=request.device,
        seed=int(run.get("seed", request.seed)),
        quality=quality if quality in QUALITIES else STANDARD,
        series=request.series,
        name=request.name,
        progress=progress,
    )


def result_of_field(
    field: Field, volume: Volume, run: dict[str, Any], regions: Source | None = None
) -> Result:
    """The result that a run decided, from what it kept.

    Args:
        field: what the run kept.
        volume: the CT.
        run: its manifest; empty where it is not known.
        regions: to measure, as of ``segment``.

    Raises:
        UnusableInputError: it is of another CT.
    """
    from DiffSegLungLib.decision.label_map import entropy_map, label_map
    from DiffSegLungLib.decision.network_decision import decide_by_network
    from DiffSegLungLib.export.manifest import describe_input, describe_software
    from DiffSegLungLib.export.result import Result
    from DiffSegLungLib.io.segmentations import more_regions
    from DiffSegLungLib.io.volume import to_input_geometry
    from DiffSegLungLib.quantify.measures import measure_corrected

    field.require_fits(volume)
    sides, evidence = field.sides_on_ct(), field.evidence()
    tissues = decide_by_network(evidence)
    labels = label_map(tissues, evidence.grid, volume, sides > 0)
    named = more_regions(regions, volume, sides)
    own = {"software": describe_software(), "parameters": {"segmentation": "given"}, "warnings": []}
    return Result(
        labels=to_input_geometry(labels, volume),
        measures=measure_corrected(labels, sides, volume.hu, volume.spacing, named, volume.voxel_ml),
        manifest={**(run or own), "input": describe_input(volume)},
        volume=volume,
        label_array=labels,
        sides=sides,
        regions=named,
        map_entropy=partial(entropy_map, tissues, evidence.grid, volume, labels > 0),
        field=field,
    )
