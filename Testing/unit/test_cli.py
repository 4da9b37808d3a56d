"""The command line: light to start, one line per error, exit statuses that scripts can trust."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib import tissues
from DiffSegLungLib.app import arguments, cli
from DiffSegLungLib.app.commands import SegmentRequest, check_request
from DiffSegLungLib.errors import CancelledError, MissingPartError, UnusableInputError

ROOT = Path(__file__).parents[2]
HEAVY = {"numpy", "SimpleITK", "scipy", "torch", "monai", "pandas", "matplotlib", "tqdm", "sklearn"}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "DiffSegLungLib", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def assert_one_line(text: str) -> None:
    assert text.startswith("diffseglung: error: ")
    assert len(text.splitlines()) == 1 and text.endswith("\n")
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["segment", "--help"],
        ["measure", "--help"],
        ["check", "--help"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; from DiffSegLungLib.app.cli import main; main({words!r}); print(*sorted(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = {name.split(".")[0] for name in result.stdout.splitlines()[-1].split()}
    assert "argparse" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_help_names_the_commands_that_exist_and_no_other() -> None:
    result = run("--help")
    assert result.returncode == 0 and result.stderr == ""
    listed = {line.split()[0] for line in result.stdout.splitlines() if line.startswith("    ")}
    assert {"segment", "measure", "models", "check", "phantom", "train", "evaluate"} <= listed
    parser = cli.build_parser()
    [commands] = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    assert listed == set(commands)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["segment"],
        ["segment", "ct.nrrd"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--device", "tpu"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--seed", "-1"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--seed", "1.5"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--progress", "xml"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--uncert", "u.nrrd"],
        ["segment", "ct.nrrd", "-o", "a.seg.nrrd", "--quality", "ultra"],
        ["measure"],
        ["measure", "ct.nrrd"],
        ["check", "--xml"],
        ["models"],
        ["models", "burn"],
        ["models", "remove"],
        ["phantom", "p.nrrd", "--spacing", "wide"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line_and_status_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err)


def test_wrong_use_in_a_real_process() -> None:
    result = run("segment", "ct.nrrd")
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr)
    assert "-o/--output" in result.stderr and "diffseglung segment --help" in result.stderr


def test_a_refused_output_ends_before_the_work(tmp_path: Path) -> None:
    source = tmp_path / "ct.nrrd"
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), str(source))
    before = source.read_bytes()
    result = run("segment", str(source), "-o", str(source), "--progress", "json")
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr)
    assert "is also an input" in result.stderr
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nrrd"]


def request(folder: Path, **changes: object) -> SegmentRequest:
    values: dict[str, object] = {"source": folder / "ct.nrrd", "output": folder / "ct.seg.nrrd"}
    return SegmentRequest(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "out.mha"}, "must end in .seg.nrrd or .nrrd or .nii.gz"),
        ({"output": "out"}, "must end in"),
        ({"output": "ct.nrrd"}, "is also an input"),
        ({"lungs": "ct.seg.nrrd"}, "is also an input"),
        ({"uncertainty": "u.png"}, "must end in .nrrd or .nii.gz"),
        ({"uncertainty": "u.seg.nrrd"}, "would not be a segmentation"),
        ({"output": "out.nrrd", "uncertainty": "out.nrrd"}, "Two outputs"),
        ({"overview": "o.jpg"}, "must end in .png"),
        ({"measures": "m.xlsx"}, "must end in .csv"),
        ({"save_lungs": "lungs.mha"}, "must end in .seg.nrrd"),
        ({"save_lungs": "ct.seg.nrrd"}, "Two outputs"),
        ({"output": "o.seg.nrrd", "lungs": "l.nrrd", "save_lungs": "l.nrrd"}, "is also an input"),
        ({"dicom_seg": "s.nrrd"}, "must end in .dcm"),
        ({"manifest": "m.txt"}, "must end in .json"),
        ({"output": "file/out.seg.nrrd"}, "Cannot write"),
        ({"output": "folder.seg.nrrd"}, "is a folder"),
        ({"report": "file"}, "is a file"),
    ],
)
def test_outputs_that_cannot_end_well(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    (tmp_path / "ct.nrrd").write_text("a CT")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.seg.nrrd").mkdir()
    with pytest.raises(UnusableInputError, match=message) as caught:
        check_request(request(tmp_path, **{name: tmp_path / path for name, path in changes.items()}))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "ct.nrrd").read_text() == "a CT"


def test_a_dicom_segmentation_needs_a_dicom_ct(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is optional")
    (tmp_path / "ct.nrrd").write_text("a CT")
    with pytest.raises(UnusableInputError, match=r"ct\.nrrd is no DICOM"):
        check_request(request(tmp_path, dicom_seg=tmp_path / "s.dcm"))


def test_an_unknown_quality_ends_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="fast, standard, best"):
        check_request(request(tmp_path, quality="ultra"))


def test_a_link_to_the_input_is_the_input(tmp_path: Path) -> None:
    (tmp_path / "ct.nrrd").write_text("a CT")
    try:
        (tmp_path / "link.nrrd").symlink_to(tmp_path / "ct.nrrd")
    except OSError as error:
        pytest.skip(f"cannot make links here: {error}")
    with pytest.raises(UnusableInputError, match="is also an input"):
        check_request(request(tmp_path, output=tmp_path / "link.nrrd"))


def test_the_output_folder_is_made(tmp_path: Path) -> None:
    (tmp_path / "ct.nrrd").write_text("a CT")
    check_request(request(tmp_path, output=tmp_path / "new" / "deep" / "out.nii.gz"))
    assert list((tmp_path / "new" / "deep").iterdir()) == []


@pytest.mark.parametrize("name", ["ct.seg.nrrd", "ct.nrrd", "ct.nii.gz"])
def test_the_manifest_lies_beside_the_output(tmp_path: Path, name: str) -> None:
    assert request(tmp_path, output=tmp_path / name).manifest_path == tmp_path / "ct.manifest.json"
    assert request(tmp_path, manifest=tmp_path / "m.json").manifest_path == tmp_path / "m.json"


class TorchLike:
    class OutOfMemoryError(RuntimeError):
        pass


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UnusableInputError("what\nwhere"), 2, "what where"),
        (MissingPartError("no weights"), 3, "no weights"),
        (CancelledError("stopped"), 130, "stopped"),
        (KeyboardInterrupt(), 130, "Cancelled"),
        (ModuleNotFoundError("No module named 'monai'", name="monai"), 3, "monai is missing"),
        (ModuleNotFoundError("No module", name="DiffSegLungLib.gone"), 1, "ModuleNotFoundError"),
        (MemoryError(), 3, "Not enough memory"),
        (TorchLike.OutOfMemoryError("CUDA out of memory"), 3, "--device cpu"),
        (ValueError("x" + "\n" + "y"), 1, "ValueError: x y"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_statuses(
    error: BaseException,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(given: object) -> int:
        raise error

    monkeypatch.setattr(arguments, "run_list_models", fail)
    assert cli.main(["models", "list"]) == status
    captured = capsys.readouterr().err
    assert_one_line(captured)
    assert message in captured
    assert cli.main(["models", "list", "--debug"]) == status
    assert "Traceback" in capsys.readouterr().err


WAITING = """
import signal, sys, time
from pathlib import Path
# Tests that run in the background hand down that this signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from DiffSegLungLib.app import arguments, cli
from DiffSegLungLib.io.atomic import atomic_path

def wait(given):
    with atomic_path(sys.argv[1]) as partial:
        partial.write_text("half")
        print("writing", flush=True)
        time.sleep(60)

arguments.run_list_models = wait
sys.exit(cli.main(["models", "list"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_and_leaves_no_partial_file(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path / "out.txt")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        start = time.monotonic()
        os.kill(child.pid, number)
        _, errors = child.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert child.returncode == 130
    assert_one_line(errors)
    assert list(tmp_path.iterdir()) == []


def test_phantom_writes_ct_and_truth(tmp_path: Path) -> None:
    ct, truth = tmp_path / "new" / "p.nrrd", tmp_path / "t.seg.nrrd"
    result = run(
        "phantom", str(ct), "--truth", str(truth), "--spacing", "6", "--lesions", "emphysema,consolidation"
    )
    assert (result.returncode, result.stderr) == (0, "")
    image, labels = sitk.ReadImage(str(ct)), sitk.ReadImage(str(truth))
    assert image.GetSpacing() == (6.0, 6.0, 6.0) == labels.GetSpacing()
    found = set(np.unique(sitk.GetArrayFromImage(labels)))
    assert {0, tissues.HEALTHY, tissues.EMPHYSEMA, tissues.CONSOLIDATION} == found


@pytest.mark.parametrize(
    "words", [["--lesions", "measles"], ["--spacing", "0"], ["--truth", "p.nrrd"]], ids=" ".join
)
def test_an_impossible_phantom_is_refused(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["phantom", "p.nrrd", *words]) == 2
    assert_one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []
