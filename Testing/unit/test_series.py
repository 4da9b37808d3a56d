"""Which series of a DICOM folder is read: listed with numbers, and chosen by number or UID."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from DiffSegLungLib.app import cli
from DiffSegLungLib.app.cohort import CohortRequest
from DiffSegLungLib.app.cohort import command as cohort_command
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.volume import load_volume
from Testing.unit.dicom_series import write_series

STUDY = "1.2.826.7"
UIDS = {"3": "1.2.826.7.3", "4": "1.2.826.7.4", "5": "1.2.826.7.5"}


def chest(number: str, slices: int) -> np.ndarray:
    """Air with a body in it, and a voxel that says which series it is."""
    hu = np.full((slices, 20, 22), -1000.0)
    hu[:, 4:16, 4:18] = 40.0
    hu[0, 0, 0] = -900 - int(number)
    return hu


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thin and soft, thin and sharp, thick: as an archive sends them, in one folder each, and a scout."""
    place = tmp_path_factory.mktemp("study") / "GRUEN^AENNE"
    for number, slices, kernel in (("3", 20, "B31f"), ("4", 20, "B70f"), ("5", 10, "B31f")):
        write_series(
            place / number, chest(number, slices), number=int(number), series=UIDS[number],
            ConvolutionKernel=kernel, StudyInstanceUID=STUDY,
        )  # fmt: skip
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(place, chest("1", 2), number=1, ImageType=scout, StudyInstanceUID=STUDY)
    return place


def taken(folder: Path, wanted: str | None) -> str:
    return str(round(-900 - float(load_volume(folder, wanted).hu[0, 0, 0])))


@pytest.mark.parametrize(
    ("wanted", "number"), [(None, "3"), ("3", "3"), ("4", "4"), ("5", "5"), (UIDS["4"], "4")]
)
def test_a_series_is_taken_by_number_or_uid(folder: Path, wanted: str | None, number: str) -> None:
    assert taken(folder, wanted) == number
    volume = load_volume(folder, wanted)
    assert volume.name == f"CT series {number}" and volume.series_uid == UIDS[number]
    reason = "as asked for" if wanted else "the one with most slices"
    assert f"series number {number} was taken, {reason}" in volume.warnings[0]
    for other in set(UIDS) - {number}:
        assert re.search(rf"not taken: .*\b{other} \(", volume.warnings[0])


@pytest.mark.parametrize("wanted", ["9", "1", "4 ", "1.2.826.7"])
def test_what_is_not_there_is_refused_with_the_list(folder: Path, wanted: str) -> None:
    with pytest.raises(UnusableInputError, match=r"choose one of 3 \(20 slices, B31f\), 4 .*--series"):
        load_volume(folder, wanted)


def test_the_list_keeps_its_columns_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As scanners write them: a thickness with six zeros, a long number, a long kernel."""
    uid, kernel = "1.2.826.7.8", "BONEPLUS_ADAPT"
    write_series(
        tmp_path, chest("8", 100), number=12345678, series=uid,
        SliceThickness="2.500000", ConvolutionKernel=kernel,
    )  # fmt: skip
    assert cli.main(["check", str(tmp_path)]) == 0
    titles, series, *_ = capsys.readouterr().out.splitlines()
    assert titles.split() == ["number", "slices", "mm", "kernel", "UID"]
    assert series.split() == ["*", "12345678", "100", "2.5", kernel, uid]


def test_a_number_that_several_series_have_asks_for_the_uid(tmp_path: Path) -> None:
    for uid in ("1.2.3", "1.2.4"):
        write_series(tmp_path / uid, chest("4", 10), series=uid, StudyInstanceUID=STUDY)
    with pytest.raises(UnusableInputError, match="2 series have the number 4; give --series the UID"):
        load_volume(tmp_path, "4")
    assert load_volume(tmp_path, "1.2.4").series_uid == "1.2.4"


def test_of_two_studies_one_can_be_chosen(tmp_path: Path) -> None:
    for number, study in ((4, "1.2.3"), (7, "1.2.4")):
        write_series(tmp_path / study, chest(str(number), 10), number=number, StudyInstanceUID=study)
    with pytest.raises(UnusableInputError, match=r"2 studies .* 4 \(10 slices\), 7 .*--series"):
        load_volume(tmp_path)
    assert taken(tmp_path, "7") == "7"


def test_a_file_has_no_series_to_choose(tmp_path: Path, folder: Path) -> None:
    file = next(path for path in folder.rglob("*") if path.is_file())
    with pytest.raises(UnusableInputError, match="--series is for DICOM folders"):
        load_volume(file, "3")


def test_the_command_check_lists_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["*", "3", "20"],
        ["4", "20", "1.25"],
        ["5", "10", "1.25"],
    ]
    assert [line.split()[-1] for line in lines[1:4]] == list(UIDS.values())
    assert cli.main(["check", str(folder), "--json", "--series", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["number"] for each in found["series"] if each["taken"]] == ["5"] and found["usable"]


def test_the_command_check_says_why_a_ct_cannot_be_read(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(folder), "--series", "9"]) == 2
    assert "no axial CT series 9" in capsys.readouterr().out
    assert cli.main(["check", str(tmp_path / "nowhere")]) == 2
    assert cli.main(["check", "--series", "3"]) == 2
    (tmp_path / "ct.nrrd").write_bytes(b"nonsense")
    assert cli.main(["check", str(tmp_path / "ct.nrrd"), "--json"]) == 2
    assert "ct.nrrd" in json.loads(capsys.readouterr().out)["problem"]


def test_the_choice_reaches_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``segment`` refuses in its first stage what ``batch`` hands on to each DICOM case."""
    out = folder.parent / "out"
    words = ["segment", str(folder), "-o", str(out / "ct.seg.nrrd"), "--series", "9", "--progress", "none"]
    assert cli.main(words) == 2
    assert "no axial CT series 9" in capsys.readouterr().err
    jobs = cohort_command.plan(CohortRequest(folder, out, device="cpu", series="4"))
    assert [job.request.series for job in jobs] == ["4"]
