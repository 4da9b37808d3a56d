"""The arguments of all commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from DiffSegLungLib.app.handlers import (
    run_check,
    run_correct,
    run_finetune,
    run_list_models,
    run_measure,
    run_phantom,
    run_remove_model,
    run_segment,
    run_serve,
    run_train,
    run_verify_models,
)
from DiffSegLungLib.app.program import PROGRAM, WRONG_USE
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD
from DiffSegLungLib.tissues import DISEASES

DEVICES = ("auto", "cpu", "cuda", "mps")
LESIONS = tuple(tissue.key for tissue in DISEASES)
SEED_LIMIT = 2**32
PORT_LIMIT = 2**16
CT_HELP = "NRRD, NIfTI, MetaImage, or a DICOM folder"
REGIONS_HELP = "lobes or other regions to measure: a segmentation, a label map, or the word thirds"
SERIES_HELP = "number or UID of the series to take of a DICOM folder (default: the original with most slices)"
DICOM_SR_HELP = "write the measures as DICOM SR (TID 1500) that refers to the DICOM segmentation"
DICOM_SEG_HELP = "write a DICOM segmentation; the CT must be DICOM"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and takes no abbreviated options: scripts shall last."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Ends with exit status 2."""
        self.exit(WRONG_USE, f"{PROGRAM}: error: {message}. See: {self.prog} --help\n")


def build_parser(with_training: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        with_training: also load the options of ``train`` and ``finetune``, which need the training packages.
    """
    parser = Parser(prog=PROGRAM, description="Finds diseased lung tissue in chest CT. For research only.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_segment(commands)
    _add_batch(commands)
    _add_measure(commands)
    _add_correct(commands)
    _add_models(commands)
    _add_check(commands)
    _add_phantom(commands)
    _add_train(commands, with_training)
    _add_finetune(commands, with_training)
    _add_evaluate(commands)
    _add_serve(commands)
    return parser


def _version() -> str:
    from DiffSegLungLib.version import __version__

    return __version__


def _add_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_segment(commands: Any) -> None:
    parser = _add_command(commands, "segment", "Segment one CT into healthy and diseased lung tissue.")
    parser.add_argument("source", metavar="CT", type=Path, help=CT_HELP)
    _add_which(parser)
    output_help = "segmentation (.seg.nrrd) or plain label map (.nrrd, .nii.gz)"
    parser.add_argument("-o", "--output", metavar="OUT.seg.nrrd", required=True, type=Path, help=output_help)
    lungs = parser.add_mutually_exclusive_group()
    lungs.add_argument("--lungs", metavar="MASK", type=Path, help="lung mask to use instead of our own")
    classical_help = "find the lungs without the lung network: dense lung may be lost"
    lungs.add_argument("--classical-lungs", action="store_true", help=classical_help)
    parser.add_argument("--regions", metavar="LOBES", type=Path, help=REGIONS_HELP)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    quality_help = f"how much work goes into the embedding (default: {STANDARD})"
    parser.add_argument("--quality", choices=tuple(QUALITIES), default=STANDARD, help=quality_help)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute (default: auto)")
    parser.add_argument("--seed", metavar="N", type=_seed, default=0, help="of random numbers (default: 0)")
    _add_segment_outputs(parser)
    _add_progress(parser)
    parser.set_defaults(handler=run_segment)


def _add_progress(parser: argparse.ArgumentParser) -> None:
    progress_help = "a bar, one JSON object a line on standard output, or nothing (default: bar)"
    parser.add_argument("--progress", choices=("json", "bar", "none"), default="bar", help=progress_help)


def _add_which(parser: argparse.ArgumentParser) -> None:
    """Which CT of a DICOM folder, and what it is called in what is written."""
    parser.add_argument("--series", metavar="N_OR_UID", help=SERIES_HELP)
    name_help = "what manifest and report call the CT (default: CT; a file's name may be a patient's)"
    parser.add_argument("--name", metavar="NAME", type=_title, help=name_help)


def _add_segment_outputs(parser: argparse.ArgumentParser) -> None:
    """What can be written beside the segmentation."""
    lungs_help = "write the lung mask, right and left"
    parser.add_argument("--save-lungs", metavar="OUT.seg.nrrd", type=Path, help=lungs_help)
    field_help = "write what 'correct' needs to spread strokes without reading the CT anew"
    parser.add_argument("--save-field", metavar="OUT.safetensors", type=Path, help=field_help)
    parser.add_argument("--measures", metavar="OUT.csv", type=Path, help="write the table of measures")
    parser.add_argument("--report", metavar="FOLDER", type=Path, help="write a report with figures")
    parser.add_argument("--uncertainty", metavar="OUT.nrrd", type=Path, help="write the uncertainty, 0 to 1")
    parser.add_argument("--overview", metavar="OUT.png", type=Path, help="write one picture of the result")
    parser.add_argument("--dicom-seg", metavar="OUT.dcm", type=Path, help=DICOM_SEG_HELP)
    parser.add_argument("--dicom-sr", metavar="OUT.dcm", type=Path, help=DICOM_SR_HELP)
    parser.add_argument("--manifest", metavar="OUT.json", type=Path, help="default: beside the output")


def _add_batch(commands: Any) -> None:
    from DiffSegLungLib.app.cohort.command import add_arguments

    add_arguments(_add_command(commands, "batch", "Segment and measure every CT of a folder."))


def _add_measure(commands: Any) -> None:
    parser = _add_command(commands, "measure", "Measure a segmentation, as made or corrected by hand.")
    parser.add_argument("source", metavar="CT", type=Path, help=CT_HELP)
    _add_which(parser)
    segmentation_help = "tissues: a segmentation (known by ID, code or name), or a label map (by value)"
    parser.add_argument("segmentation", metavar="SEGMENTATION", type=Path, help=segmentation_help)
    lungs_help = "lung mask of the segmentation, as --save-lungs wrote it"
    parser.add_argument("--lungs", metavar="MASK", type=Path, help=lungs_help)
    parser.add_argument("--regions", metavar="LOBES", type=Path, help=REGIONS_HELP)
    parser.add_argument("-o", "--output", metavar="OUT.csv", type=Path, help="write the table of measures")
    parser.add_argument("--report", metavar="FOLDER", type=Path, help="write a report with figures")
    parser.add_argument("--dicom-seg", metavar="OUT.dcm", type=Path, help=DICOM_SEG_HELP)
    parser.add_argument("--dicom-sr", metavar="OUT.dcm", type=Path, help=DICOM_SR_HELP)
    manifest_help = "manifest of the run that made the segmentation, for the report"
    parser.add_argument("--manifest", metavar="M.json", type=Path, help=manifest_help)
    corrected_help = "say that the segmentation was corrected by hand"
    parser.add_argument("--corrected", action="store_true", help=corrected_help)
    from DiffSegLungLib.app.compare_command import add_arguments

    add_arguments(parser)
    parser.set_defaults(handler=run_measure)


def _add_correct(commands: Any) -> None:
    summary = "Spread strokes that were painted over the whole CT."
    parser = _add_command(commands, "correct", summary)
    parser.add_argument("source", metavar="CT", type=Path, help=CT_HELP)
    parser.add_argument("result", metavar="RESULT", type=Path, help="segmentation that 'segment' wrote")
    strokes_help = "what was painted, on the CT's grid: tissues (by ID, code or name) and not-lung"
    parser.add_argument("--strokes", metavar="S.seg.nrrd", required=True, type=Path, help=strokes_help)
    output_help = "corrected segmentation (.seg.nrrd) or plain label map (.nrrd, .nii.gz)"
    parser.add_argument("-o", "--output", metavar="OUT.seg.nrrd", required=True, type=Path, help=output_help)
    field_help = "what 'segment --save-field' kept; without it the network reads the CT again"
    parser.add_argument("--field", metavar="F.safetensors", type=Path, help=field_help)
    run_help = "manifest of the run that made RESULT (default: the one beside it)"
    parser.add_argument("--run", metavar="M.json", type=Path, help=run_help)
    _add_which(parser)
    parser.add_argument("--lungs", metavar="MASK", type=Path, help="lung mask that RESULT was made with")
    parser.add_argument("--regions", metavar="LOBES", type=Path, help=REGIONS_HELP)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights that made RESULT")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute (default: auto)")
    _add_segment_outputs(parser)
    _add_progress(parser)
    unused = {"classical_lungs": False, "seed": 0, "quality": STANDARD}  # as the run's manifest says
    parser.set_defaults(handler=run_correct, **unused)


def _add_models(commands: Any) -> None:
    summary = "List, verify or remove the weights."
    parser = commands.add_parser("models", help=summary, description=summary)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = _add_command(actions, "list", "List the weights that are installed.")
    listing.set_defaults(handler=run_list_models)
    verify = _add_command(actions, "verify", "Check the weights' checksums.")
    verify.add_argument("model", metavar="NAME", nargs="?", help="name or folder; all if left out")
    verify.set_defaults(handler=run_verify_models)
    remove = _add_command(actions, "remove", "Delete a model of your own store, DIFFSEGLUNG_MODELS.")
    remove.add_argument("model", metavar="NAME", help="as 'models list' shows it")
    remove.set_defaults(handler=run_remove_model)


def _add_check(commands: Any) -> None:
    summary = "Say whether this computer, or a CT, is fit to segment."
    parser = _add_command(commands, "check", summary)
    ct_help = "look at this CT instead; a DICOM folder's series are listed with their numbers"
    parser.add_argument("source", metavar="CT", type=Path, nargs="?", help=ct_help)
    parser.add_argument("--series", metavar="N_OR_UID", help=SERIES_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights that shall run (default: shipped)")
    parser.set_defaults(handler=run_check)


def _add_phantom(commands: Any) -> None:
    parser = _add_command(commands, "phantom", "Write a synthetic chest CT whose tissues are known.")
    parser.add_argument("output", metavar="OUT.nrrd", type=Path, help="the synthetic CT (.nrrd, .nii.gz)")
    parser.add_argument("--truth", metavar="T.nrrd", type=Path, help="write its true label map")
    parser.add_argument("--spacing", metavar="MM", type=float, default=1.5, help="voxel size (default: 1.5)")
    parser.add_argument("--seed", metavar="N", type=_seed, default=0, help="of shape and noise (default: 0)")
    lesions_help = f"comma-separated, of {', '.join(LESIONS)}; or none (default: all)"
    parser.add_argument("--lesions", metavar="LIST", type=_lesions, default=LESIONS, help=lesions_help)
    parser.set_defaults(handler=run_phantom)


def _add_train(commands: Any, with_options: bool) -> None:
    parser = _add_command(commands, "train", "Train weights: prepare data, run, fit the mixture.")
    if with_options:  # they are the training's own, and so is what they import
        from DiffSegLungLib.training.cli import add_arguments

        add_arguments(parser)
        parser.set_defaults(handler=run_train)


def _add_finetune(commands: Any, with_options: bool) -> None:
    parser = _add_command(commands, "finetune", "Let a model go on learning on your own CT, without labels.")
    if with_options:
        from DiffSegLungLib.training.finetune_cli import add_arguments

        add_arguments(parser)
        parser.set_defaults(handler=run_finetune)


def _add_serve(commands: Any) -> None:
    parser = _add_command(commands, "serve", "Open, segment, correct and save in a browser.")
    source_help = f"{CT_HELP}; or a folder of these"
    parser.add_argument("source", metavar="CT_OR_FOLDER", type=Path, help=source_help)
    output_help = "save into this folder, and reopen what was saved there; without it files are downloaded"
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, help=output_help)
    names_help = "call saved files and reports as the CT's file, which may name a patient (default: a code)"
    parser.add_argument("--keep-names", action="store_true", help=names_help)
    parser.add_argument("--lungs", metavar="MASK", type=Path, help="lung mask of the one CT to use")
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    parser.add_argument("--quality", choices=tuple(QUALITIES), default=STANDARD, help="offered first")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to compute (default: auto)")
    parser.add_argument("--seed", metavar="N", type=_seed, default=0, help="of random numbers (default: 0)")
    host_help = (
        "listen here too: others in the network can then come in with the address (default: this computer)"
    )
    parser.add_argument("--host", default="127.0.0.1", help=host_help)
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="default: a free one")
    parser.add_argument("--open", action="store_true", help="open the page in this computer's browser")
    parser.set_defaults(handler=run_serve)


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else -1
    if not 0 <= port < PORT_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {PORT_LIMIT - 1}")
    return port


def _seed(text: str) -> int:
    seed = int(text) if text.isdecimal() else -1
    if not 0 <= seed < SEED_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {SEED_LIMIT - 1}")
    return seed


def _title(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is no name")
    return text.strip()


def _lesions(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


def _add_evaluate(commands: Any) -> None:
    from DiffSegLungLib.evaluation.command import add_arguments

    about = "Measure the accuracy on read CT and on painted disease."
    parser = _add_command(commands, "evaluate", about)
    add_arguments(parser)
