"""Cohorts: found, done once each, resumed, failures apart, names of patients nowhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from DiffSegLungLib.app import cli
from DiffSegLungLib.app.cohort import CohortRequest, jobs, run_cohort
from DiffSegLungLib.app.cohort import command as cohort_command
from DiffSegLungLib.app.cohort.jobs import Job, Outcome, is_whole, request_into, run_job, write_record
from DiffSegLungLib.app.cohort.pool import LocalPool, run_jobs
from DiffSegLungLib.app.cohort.tables import TIMES, gather
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.export.manifest import code_digest
from DiffSegLungLib.io.cases import code_of, file_code, find_cases, without_names
from DiffSegLungLib.io.volume import canonical_image, load_volume, to_input_geometry
from DiffSegLungLib.models import store as models
from Testing.cohort.small_cases import SmallCases
from Testing.unit.dicom_series import write_series

ROOT = Path(__file__).parents[2]
SOME_HU = np.full((10, 8, 8), -800.0)
NOISY = np.random.default_rng(1).integers(-1000, 100, SOME_HU.shape).astype(np.float32)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CTs, their lung masks, and a file that is no CT."""
    folder = tmp_path_factory.mktemp("cohort")
    SmallCases().write(folder / "in", folder / "masks", 2)
    (folder / "in" / "Doe_John.nrrd").write_bytes(b"NRRD0004\nnonsense")
    sitk.WriteImage(SmallCases([]).lungs, str(folder / "masks" / "Doe_John.nrrd"))
    return folder


@pytest.fixture(scope="module")
def done(cohort: Path) -> CohortRequest:
    """The cohort after one run in processes."""
    request = CohortRequest(
        cohort / "in",
        cohort / "out",
        workers=1,
        threads=1,
        quality="fast",
        lungs=cohort / "masks",
        device="cpu",
        keep_names=True,
    )
    outcome = run_cohort(request)
    assert outcome.status == UnusableInputError.exit_status
    assert [failure.case for failure in outcome.failures] == ["Doe_John"]
    return request


def planned(request: CohortRequest) -> dict[str, Job]:
    return {job.case: job for job in cohort_command.plan(request)}


def changed(job: Job, folder: Path | None = None, **how: Any) -> Job:
    """The job with another folder or other options of ``segment``."""
    request = replace(job.request, **how)
    if folder:
        outputs = {name: folder / getattr(request, name).name for name in ("output", "measures", "manifest")}
        request = replace(request, **outputs)
    return replace(job, request=request)


# --- cases ----------------------------------------------------------------------------------------


def write_study(folder: Path, study: str) -> None:
    write_series(folder, SOME_HU, StudyInstanceUID=study)


def test_cases_are_files_and_studies(tmp_path: Path) -> None:
    """A study in several folders is one case; two studies of one patient are two."""
    first, second = str(generate_uid()), str(generate_uid())
    write_study(tmp_path / "DOE^JOHN" / "study1" / "series1", first)
    write_study(tmp_path / "DOE^JOHN" / "study1" / "series2", first)
    write_study(tmp_path / "DOE^JOHN" / "study2" / "series1", second)
    for name in ("a.nrrd", "sub/b.nii.gz", ".hidden/c.nrrd", "a.seg.nrrd", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    cases = {case.relative: case.name for case in find_cases(tmp_path)}
    assert set(cases) == {"a.nrrd", "sub/b.nii.gz", "DOE^JOHN/study1", "DOE^JOHN/study2/series1"}
    assert not any("DOE" in name for name in cases.values()), "no folder's name unless asked for"
    assert all(re.fullmatch(r"(ct|study)-[0-9a-f]{12}", name) for name in cases.values())
    kept = {case.relative: case.name for case in find_cases(tmp_path, keep_names=True)}
    assert kept["DOE^JOHN/study1"] == "DOE_JOHN_study1"
    assert (kept["a.nrrd"], kept["sub/b.nii.gz"]) == ("a", "sub_b")


def test_a_code_is_of_the_file_wherever_it_lies_and_not_of_its_name_alone(tmp_path: Path) -> None:
    for place, content in (("x", b"1" * 300_000), ("y", b"1" * 300_000), ("z", b"1" * 299_999 + b"2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "SMITH_JOHN.nrrd").write_bytes(content)
    codes = [find_cases(tmp_path / place)[0].name for place in "xyz"]
    assert codes[0] == codes[1] != codes[2]
    together = {case.relative: case.name for case in find_cases(tmp_path)}
    assert len(set(together.values())) == 3, "two copies in one cohort are two cases"


def test_studies_side_by_side_stay_apart(tmp_path: Path) -> None:
    first, second = str(generate_uid()), str(generate_uid())
    for series, study in (("s1", first), ("s2", second), ("s3", first)):
        write_study(tmp_path / "p" / series, study)
    assert {case.relative for case in find_cases(tmp_path)} == {"p/s1", "p/s2", "p/s3"}
    assert len({case.name for case in find_cases(tmp_path)}) == 3


@pytest.mark.parametrize("keep_names", [False, True])
def test_names_are_unique_and_do_not_depend_on_other_cases(tmp_path: Path, keep_names: bool) -> None:
    for name in ("x/ct.nrrd", "y/CT.nrrd", "z/other.nrrd"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    before = {case.relative: case.name for case in find_cases(tmp_path, keep_names)}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ct.nrrd").write_text("another CT")
    after = {case.relative: case.name for case in find_cases(tmp_path, keep_names)}
    assert len({name.lower() for name in after.values()}) == 4
    assert {path: after[path] for path in before} == before


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="no CT in it"):
        find_cases(tmp_path)
    with pytest.raises(UnusableInputError, match="no such folder"):
        find_cases(tmp_path / "nowhere")


def write_patient(folder: Path, patient: str, hu: np.ndarray = SOME_HU, study: str = "1.2.3") -> None:
    write_series(folder, hu, StudyInstanceUID=study, PatientID=patient)


def test_patients_under_one_study_are_cases_of_their_own(tmp_path: Path) -> None:
    for patient in ("ONE", "TWO", "THREE"):
        for series in ("a", "b"):
            write_patient(tmp_path / patient / series, patient)
    assert {case.relative for case in find_cases(tmp_path)} == {"ONE", "TWO", "THREE"}
    assert len({case.name for case in find_cases(tmp_path)}) == 3


def test_links_are_followed_and_no_folder_counts_twice(tmp_path: Path) -> None:
    for patient in ("ONE", "TWO"):
        write_patient(tmp_path / "store" / patient, patient, study=f"1.2.{patient.count('O')}")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for name, target in (("a", "../store/ONE"), ("b", "../store/TWO"), ("b again", "../store/TWO")):
        (cohort / name).symlink_to(target, target_is_directory=True)
    (cohort / "loop").symlink_to(".", target_is_directory=True)
    (cohort / "up").symlink_to("../cohort", target_is_directory=True)
    assert {case.relative for case in find_cases(cohort)} == {"a", "b"}
    with pytest.raises(UnusableInputError, match="no CT in it"):
        find_cases(cohort, follow_links=False)


@pytest.mark.parametrize("name", ["ct.nrrd", "one/ct.nii.gz", "one/nifti/ct.nii", "one/deep/ct.mha"])
@pytest.mark.parametrize("flip", [(0, 0, 0), (0, 1, 0), (1, 1, 1)], ids=str)
def test_a_file_made_of_the_images_beside_it_is_no_case(
    tmp_path: Path, name: str, flip: tuple[int, ...]
) -> None:
    write_patient(tmp_path / "one" / "dicom", "ONE", NOISY)
    image = sitk.Cast(canonical_of(tmp_path / "one" / "dicom"), sitk.sitkInt16)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.Flip(image, [bool(axis) for axis in flip]), tmp_path / name)
    sitk.WriteImage(image + 7, tmp_path / "one" / "another.nrrd")
    cases = find_cases(tmp_path)
    assert sorted(case.relative for case in cases) == ["one/another.nrrd", "one/dicom"]
    assert [case.copies for case in cases if case.source.is_dir()] == [(tmp_path / name,)]


def canonical_of(folder: Path) -> sitk.Image:
    volume = load_volume(folder)
    return canonical_image(volume.hu, volume)


# --- a run ----------------------------------------------------------------------------------------


def test_the_tables_hold_every_case(done: CohortRequest) -> None:
    cases = pandas.read_csv(done.output / "cases.csv")
    assert list(cases["case"]) == ["Doe_John", "case000", "case001"]
    assert list(cases["state"]) == ["failed", "done", "done"]
    measures = pandas.read_csv(done.output / "measures.csv")
    assert list(measures["case"].unique()) == ["case000", "case001"]
    assert measures.groupby("case").size().tolist() == [9, 9], "whole, right, left and six thirds"
    for case in ("case000", "case001"):
        own = pandas.read_csv(done.output / "cases" / case / "measures.csv")
        rows = measures[measures["case"] == case].drop(columns="case").reset_index(drop=True)
        pandas.testing.assert_frame_equal(rows, own)
    failures = pandas.read_csv(done.output / "failures.csv")
    assert list(failures["case"]) == ["Doe_John"] and failures["reason"].str.len().min() > 10


def test_parquet_is_the_same_table(done: CohortRequest) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    table = pandas.read_parquet(done.output / "measures.parquet")
    pandas.testing.assert_frame_equal(table, pandas.read_csv(done.output / "measures.csv"), rtol=1e-12)


def leave_unfinished_file(folder: Path) -> None:
    """Of a process that was killed while it wrote."""
    writing = (
        "import os, sys\nfrom DiffSegLungLib.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as partial:\n    partial.touch()\n    os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", writing, str(folder / "x.nrrd")], check=False, cwd=ROOT)
    assert list(folder.glob(".partial-*"))


def test_resume_redoes_only_what_is_not_whole(done: CohortRequest) -> None:
    """The failed one is tried again, and one whose file was lost is done again."""
    folder = done.output / "cases"
    before = (folder / "case001" / "manifest.json").read_bytes()
    lost = folder / "case000" / "segmentation.seg.nrrd"
    lost.unlink()
    leave_unfinished_file(folder / "case000")
    table = (done.output / "measures.csv").read_bytes()
    outcome = run_cohort(replace(done, resume=True))
    assert sorted(each.case for each in outcome.outcomes) == ["Doe_John", "case000"]
    assert outcome.whole_before == 1
    assert lost.exists() and not list(folder.rglob(".partial-*"))
    assert (folder / "case001" / "manifest.json").read_bytes() == before
    assert (done.output / "measures.csv").read_bytes() == table, "the same numbers, to the last digit"


def test_a_changed_ct_or_parameter_is_not_whole(done: CohortRequest) -> None:
    job = planned(done)["case001"]
    assert is_whole(job)
    assert not is_whole(changed(job, seed=1))
    assert not is_whole(replace(job, model="other"))
    stat = job.request.source.stat()
    os.utime(job.request.source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert not is_whole(job)
    os.utime(job.request.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert is_whole(job)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the default model, which a test may change."""
    return Path(shutil.copytree(models.find(), tmp_path / "model"))


def edited(model: Path, **entries: Any) -> None:
    """New entries of ``model.json``."""
    file = model / models.DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def retrained(model: Path, name: str) -> None:
    """Another file of this name, with a checksum that holds."""
    with (model / name).open("ab") as stream:
        stream.write(b"another")
    checksums = json.loads((model / models.DESCRIPTION).read_text())["sha256"]
    edited(model, sha256=checksums | {name: models.sha256_of(model / name)})


@pytest.fixture
def whole(model: Path, tmp_path: Path) -> CohortRequest:
    """A cohort of one case that was done; nothing looks into its files."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ct.nrrd").write_bytes(b"x")
    request = CohortRequest(tmp_path / "in", tmp_path / "out", model=str(model), device="cpu")
    [job] = planned(request).values()
    job.folder.mkdir(parents=True)
    for file in job.files:
        file.write_bytes(b"x")
    write_record(job, Outcome(job.case, "done"))
    assert is_done_again(request) is False
    return request


def is_done_again(request: CohortRequest) -> bool:
    [job] = planned(request).values()
    return not is_whole(job)


@pytest.mark.parametrize("name", [models.WEIGHTS, models.MIXTURE, models.LUNGS])
def test_another_network_or_mixture_is_not_whole(whole: CohortRequest, model: Path, name: str) -> None:
    retrained(model, name)
    assert is_done_again(whole)


@pytest.mark.parametrize("part", ["naming", "fusion", "regions", "embedding", "sharpness", "spacing_mm"])
def test_edited_rules_are_not_whole(whole: CohortRequest, model: Path, part: str) -> None:
    edited(model, **{part: "edited"})
    assert is_done_again(whole)


def test_another_version_or_code_is_not_whole(whole: CohortRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("DiffSegLungLib.app.cohort.jobs.__version__", "99.0")
        assert is_done_again(whole)
    monkeypatch.setattr("DiffSegLungLib.export.manifest.code_digest", lambda: "edited")
    assert is_done_again(whole)


def test_the_codes_digest_is_of_what_decides(tmp_path: Path) -> None:
    for name in ("tissues.py", "app/serve/page.py", "decision/rules.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    digests = [code_digest.__wrapped__(tmp_path)]
    for name in ("app/serve/page.py", "tissues.py", "decision/rules.py"):
        (tmp_path / name).write_text("2")
        digests.append(code_digest.__wrapped__(tmp_path))
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_shards_part_the_cohort(done: CohortRequest) -> None:
    parts = [set(planned(replace(done, shard=(part, 3)))) for part in (1, 2, 3)]
    assert set.union(*parts) == {"Doe_John", "case000", "case001"}
    assert sum(map(len, parts)) == 3


def test_a_failure_says_why_and_not_whose(done: CohortRequest) -> None:
    """The file's name is the case's name here; its folder's name stays out."""
    record = json.loads((done.output / "cases" / "Doe_John" / "job.json").read_text())
    assert record["state"] == "failed" and str(done.source) not in record["reason"]
    assert "\n" not in record["reason"]


def test_the_command_line_ends_with_the_failures_status(
    done: CohortRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["batch", str(done.source), str(done.output), "--resume", "--quality", "fast", "--device", "cpu"]
    words += ["--lungs", str(done.lungs), "--progress", "json", "--threads", "1", "--keep-names"]
    assert cli.main(words) == 2
    *records, last = capfd.readouterr().out.splitlines()
    fractions = [json.loads(line)["fraction"] for line in records]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    manifest = json.loads(Path(last).read_text())
    assert (manifest["whole_before"], list(manifest["failed"])) == (2, ["Doe_John"])


def test_a_case_without_its_mask_fails_alone(done: CohortRequest, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    job = planned(replace(done, lungs=tmp_path / "masks"))["case000"]
    outcome = run_job(changed(job, folder=tmp_path / "out"))
    assert outcome.state == "failed" and "No lung mask for this case" in outcome.reason


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere", "out"], "no such folder"),
        (["in", "in/out"], "lies in the input folder"),
        (["in", "out", "--lungs", "nowhere"], "no such folder"),
        (["in", "out", "--key", "key.txt"], "must end in .csv"),
        (["in", "out", "--shard", "0/3"], "is not a part"),
        (["in", "out", "--workers", "0"], "not a whole number from 1"),
    ],
)
def test_wrong_use_is_one_line(
    cohort: Path,
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(cohort)
    assert cli.main(["batch", *words, "--progress", "none"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


# --- workers that die -----------------------------------------------------------------------------


class MortalPool:
    """Workers that die as often as told; everything else is the real thing."""

    def __init__(self, deaths: dict[str, int]) -> None:
        self.deaths, self.closed = deaths, False
        self.started: list[str] = []
        self._jobs: list[Job] = []

    def is_free(self) -> bool:
        return len(self._jobs) < 2

    def start(self, job: Job) -> None:
        self.started.append(job.case)
        self._jobs.append(job)

    def wait(self) -> list[tuple[Job, Outcome | None]]:
        job = self._jobs.pop(0)
        if self.deaths.get(job.case, 0) > 0:
            self.deaths[job.case] -= 1
            return [(job, None)]
        return [(job, Outcome(job.case, "done"))]

    def close(self) -> None:
        self.closed = True


def some_jobs(folder: Path, names: Sequence[str]) -> list[Job]:
    return [Job(name, request_into(folder / name, folder / f"{name}.nrrd")) for name in names]


def test_a_case_whose_worker_dies_is_tried_again_and_given_up(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    pool = MortalPool({"a": 1, "b": 9})
    told: list[Outcome] = []
    run_jobs(some_jobs(tmp_path, "abc"), pool, 2, told.append)
    assert {each.case: (each.state, each.attempts) for each in told} == {
        "a": ("done", 2),
        "b": ("failed", 3),
        "c": ("done", 1),
    }
    assert pool.closed and pool.started.count("b") == 3
    assert "died 3 times" in next(each.reason for each in told if each.case == "b")


def test_a_process_that_is_killed_costs_one_attempt(done: CohortRequest, tmp_path: Path) -> None:
    """A real process is killed as it works; the case is done in the end, and once."""
    job = changed(planned(done)["case000"], folder=tmp_path / "case000")

    class KillOnce(LocalPool):
        killed = False

        def start(self, job: Job) -> None:
            super().start(job)
            if not self.killed:
                self.killed = True
                self._workers[0]._process.kill()

    told: list[Outcome] = []
    run_jobs([job], KillOnce(1, 1), 1, told.append)
    assert [(each.state, each.attempts) for each in told] == [("done", 2)]
    assert is_whole(job)


def test_an_interrupted_batch_leaves_nothing_half_and_resumes(done: CohortRequest, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "DiffSegLungLib", "batch", str(done.source), str(tmp_path / "out")]
    words += ["--lungs", str(done.lungs), "--quality", "fast", "--device", "cpu", "--progress", "json"]
    words += ["--threads", "1", "--keep-names"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "case000 done" in line)
        process.terminate()
    assert process.returncode == cli.CANCELLED
    assert not list((tmp_path / "out").rglob(".partial-*"))
    outcome = run_cohort(replace(done, output=tmp_path / "out", resume=True))
    assert outcome.whole_before == 1
    tables = [
        gather(list(planned(replace(done, output=folder)).values()))
        for folder in (tmp_path / "out", done.output)
    ]
    pandas.testing.assert_frame_equal(tables[0]["measures"], tables[1]["measures"])
    ours, theirs = (table["cases"].drop(columns=list(TIMES)) for table in tables)
    pandas.testing.assert_frame_equal(ours, theirs)


def test_our_own_fault_is_told_and_the_rest_goes_on(
    done: CohortRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(f"at {job.request.source}")

    job = changed(planned(done)["case000"], folder=tmp_path / "case000")
    monkeypatch.setattr(jobs, "segment_to_files", broken)
    outcome = run_job(job)
    assert (outcome.state, outcome.status) == ("failed", 1)
    assert outcome.reason == "ZeroDivisionError: at case000. The fault is DiffSegLung's."


# --- names of patients ----------------------------------------------------------------------------


def _without_pictures(path: Path) -> bytes:
    """A file's content without embedded pictures, whose letters spell by chance; of a PDF its text, too."""
    content = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", path.read_bytes())
    program = shutil.which("pdftotext")
    if path.suffix == ".pdf" and program:
        content += subprocess.run([program, str(path), "-"], capture_output=True, check=True).stdout
    return content


def test_no_output_names_the_patient(tmp_path: Path) -> None:
    """Names are planted in folders, file names and tags; the DICOM objects alone may hold them."""
    pytest.importorskip("highdicom", reason="DICOM output needs highdicom")
    small = SmallCases()
    hu = sitk.GetArrayFromImage(small.image(0)).astype(float)
    ct = tmp_path / "in" / "GRUEN^AENNE 19500101" / "CT"
    tags: dict[str, Any] = {"FrameOfReferenceUID": generate_uid(), "PixelSpacing": [1.5, 1.5]}
    write_series(ct, hu, step=(0, 0, 1.5), StudyInstanceUID="1.2.3", **tags)
    volume = load_volume(ct)
    (tmp_path / "masks").mkdir()
    mask = to_input_geometry(sitk.GetArrayFromImage(small.lungs), volume)
    sitk.WriteImage(mask, str(tmp_path / "masks" / f"study-{code_of('1.2.3')}.nrrd"))
    write_study(tmp_path / "in" / "MUSTERMANN^MAX", str(generate_uid()))
    file = tmp_path / "in" / "SMITH_JOHN_1954.nrrd"
    sitk.WriteImage(small.image(1), str(file))
    sitk.WriteImage(small.lungs, str(tmp_path / "masks" / file.name))
    (tmp_path / "in" / "MILLER_ANN_1960.nrrd").write_bytes(b"NRRD0004\nnonsense")
    request = CohortRequest(
        tmp_path / "in", tmp_path / "out", threads=1, quality="fast", device="cpu", report=True, dicom=True,
        key=tmp_path / "key.csv", lungs=tmp_path / "masks",
    )  # fmt: skip
    outcome = run_cohort(request)
    assert [each.state for each in outcome.outcomes].count("done") == 2, outcome.text
    names = ("GRUEN", "AENNE", "Grün", "4711", "19500101", "MUSTERMANN", "SMITH", "1954", "MILLER")
    planted = [
        re.compile(rb"(?<![0-9.])" + text.encode() + rb"(?![0-9.])") for text in names
    ]  # no decimals of a measure
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"segmentation.dcm", "measures.dcm", "report.html"} <= {path.name for path in files}
    for path in files:
        assert not any(text.search(str(path).encode()) for text in planted)
        if path.suffix != ".dcm":
            assert not any(text.search(_without_pictures(path)) for text in planted), path.name
    assert not any(text.search(outcome.text.encode()) for text in planted)
    key = (tmp_path / "key.csv").read_text()
    assert "GRUEN^AENNE 19500101" in key, "only where it was asked for"
    assert f"{file_code(file)},SMITH_JOHN_1954.nrrd" in key
    if os.name != "nt":
        assert (tmp_path / "key.csv").stat().st_mode & 0o077 == 0, "for its owner's eyes"


def test_messages_name_no_file_within_a_study(tmp_path: Path) -> None:
    """The reader says which file may not be read, and of a single file what it is; neither by its name."""
    folder = tmp_path / "GRUEN"
    write_series(folder / "AENNE", SOME_HU[:1], StudyInstanceUID="1.2.3")
    (file,) = (folder / "AENNE").iterdir()
    file = file.rename(file.with_name("GRUEN_AENNE 1.dcm"))
    text = f"{file}: may not be read; {folder.name} holds 1 file."
    assert without_names(text, "study-1", [folder]) == "study-1: may not be read; study-1 holds 1 file."
    with pytest.raises(UnusableInputError, match=r"^CT series 4: (has 1 slice|is a single 2D)"):
        load_volume(folder)


def test_one_ct_is_not_called_by_its_file_unless_asked(tmp_path: Path) -> None:
    """``segment``: neither manifest, page, PDF, tables nor pictures' titles have the name of file or mask."""
    small, named = SmallCases(), tmp_path / "SMITH_JOHN_1954"
    named.mkdir()
    sitk.WriteImage(small.image(0), str(named / "SMITH_JOHN_1954.nrrd"))
    sitk.WriteImage(small.lungs, str(named / "SMITH_mask.nrrd"))
    words = ["segment", str(named / "SMITH_JOHN_1954.nrrd"), "--lungs", str(named / "SMITH_mask.nrrd")]
    words += ["--quality", "fast", "--device", "cpu", "--progress", "none"]
    for given, folder in (([], "nameless"), (["--name", "Case 7"], "named")):
        out = tmp_path / folder
        written = ["-o", str(out / "ct.seg.nrrd"), "--report", str(out / "report")]
        assert cli.main([*words, *written, *given]) == 0
        for path in filter(Path.is_file, out.rglob("*")):
            assert not re.search(rb"SMITH|JOHN|\b1954", _without_pictures(path)), path.name
        page = (out / "report" / "report.html").read_text(encoding="utf-8")
        assert f"<h1>{given[-1] if given else 'CT'}</h1>" in page
    measure = ["measure", words[1], str(tmp_path / "nameless" / "ct.seg.nrrd"), *words[2:4]]
    assert cli.main([*measure, "--report", str(tmp_path / "again")]) == 0
    for path in (tmp_path / "again").iterdir():
        assert not re.search(rb"SMITH|JOHN|\b1954", _without_pictures(path)), path.name


# --- Ray ------------------------------------------------------------------------------------------


def test_ray_gives_the_same_table(done: CohortRequest, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine ray needs ray")
    words = [sys.executable, "-m", "DiffSegLungLib", "batch", str(done.source), str(tmp_path / "out")]
    words += ["--engine", "ray", "--workers", "1", "--threads", "1", "--lungs", str(done.lungs)]
    words.append("--keep-names")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    result = subprocess.run(
        [*words, "--quality", "fast", "--device", "cpu"], cwd=ROOT, env=environment, capture_output=True
    )
    assert result.returncode == 2, result.stderr.decode()
    for name in ("measures.csv", "failures.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (done.output / name).read_bytes()


def test_ray_is_started_again_on_a_busy_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray gives its processes half a minute, and raises a bare Exception."""
    ray = pytest.importorskip("ray", reason="the engine ray needs ray")
    from DiffSegLungLib.app.cohort import ray_pool

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start, tries = ray.init, []

    def slow(**options: Any) -> None:
        tries.append(options)
        if len(tries) < slow_starts:
            raise Exception("The current node timed out during startup.\nOr so.")
        start(**options)

    monkeypatch.setattr(ray, "init", slow)
    slow_starts = ray_pool.STARTS
    pool = ray_pool.RayPool(1, 1, gpu=False)
    assert len(tries) == ray_pool.STARTS and ray.is_initialized()
    pool.close()
    assert not ray.is_initialized()
    slow_starts = 1000
    with pytest.raises(MissingPartError, match=r"timed out during startup; .* --engine local\.$"):
        ray_pool.RayPool(1, 1, gpu=False)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine ray needs ray")
    from DiffSegLungLib.app.cohort.ray_pool import RayPool

    with pytest.raises(MissingPartError, match=r"No Ray cluster at 127\.0\.0\.1:1: .*check --address\.$"):
        RayPool(1, 1, gpu=False, address="127.0.0.1:1")
