"""What an evaluation of read and painted CT writes: figures, page, pictures, and what it prints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.evaluation import command, painted_ct, read_ct, summary, targets
from DiffSegLungLib.evaluation.frozen import FrozenLabels, freeze, write_manifest
from DiffSegLungLib.evaluation.read_ct import OURS, ReadCt
from DiffSegLungLib.evaluation.readings import Mark, Reading
from DiffSegLungLib.evaluation.study import Outcome, Plan
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.volume import Volume, load_volume
from DiffSegLungLib.tissues import GROUND_GLASS, HEALTHY

SHAPE, SPACING = (4, 60, 70), (3.0, 1.0, 1.0)
P001 = read_ct.READ_CT[0]
LUNG = (slice(None), slice(8, 52), slice(10, 60))
HAZE = (slice(1, 3), slice(24, 36), slice(24, 40))


def result() -> Any:
    """A lung with haze, segmented: the haze is found on one of its two slices."""
    hu, labels = np.full(SHAPE, 40.0, np.float32), np.zeros(SHAPE, np.uint8)
    hu[LUNG], labels[LUNG] = -850.0, HEALTHY
    hu[HAZE] = -550.0
    labels[1][HAZE[1:]] = GROUND_GLASS
    carrier = sitk.Image(SHAPE[::-1], sitk.sitkUInt8)
    carrier.SetSpacing(SPACING[::-1])
    geometry = Geometry.of(carrier)
    volume = Volume(hu, SPACING, geometry.place(sitk.Image([1, 1, 1], sitk.sitkUInt8)), geometry)
    return SimpleNamespace(label_array=labels, volume=volume, manifest={"warnings": []})


def reading(reader: str, z: tuple[int, ...]) -> Reading:
    marks = [Mark(one, 32, 30, 7, 5, "ground-glass", lesion=1) for one in z]
    marks += [Mark(2, 50, 20, 4, 4, "other"), Mark(2, 20, 40, 4, 3, "fibrosis", 30, sure=False)]
    return Reading("P001", reader, (0, 1, 2, 3), -850.0, tuple(marks))


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    """The scores of that CT by two readers, with an earlier state that found nothing."""
    nothing = np.where(result().label_array > 0, HEALTHY, 0).astype(np.uint8)
    entries = {"P001": freeze(tmp_path, "P001", {"d6e853b": nothing}, [0, 1, 2, 3])}
    write_manifest(tmp_path, ["d6e853b"], entries, {})
    readings = [reading("A", (1, 2)), reading("B", (1,))]
    return read_ct.score_ct(P001, result(), readings, FrozenLabels(tmp_path))


def test_everybody_is_scored_on_the_same_ct(row: dict[str, Any]) -> None:
    first, second = row["scores"]["A"], row["scores"]["B"]
    methods = {OURS, "thresholds", "thresholds after opening", "d6e853b", read_ct.SECOND_READER}
    assert set(first) == set(second) == methods
    assert first[OURS]["recall"] == pytest.approx(0.5) and second[OURS]["recall"] == 1
    assert first["d6e853b"]["dice"] == 0 and first["thresholds"]["recall"] > 0.9
    assert first[read_ct.SECOND_READER]["recall"] == pytest.approx(0.5)
    assert second[read_ct.SECOND_READER]["recall"] == 1
    assert row["picture"]["z"] == 1 and row["picture"]["hu"].shape == row["picture"]["labels"].shape


def test_a_chest_wall_makes_no_disease_for_the_thresholds() -> None:
    labels = read_ct.rivals(result())["thresholds"]
    rim = np.zeros(SHAPE, bool)
    rim[:, 8:12, 10:60] = True
    assert (labels[rim] == HEALTHY).all() and not labels[:, :8].any()
    assert (labels[1][HAZE[1:]] == GROUND_GLASS).mean() > 0.7, "all but the rim"


def painted_row(kind: str, dice: float | None, false: float) -> dict[str, Any]:
    known = painted_ct.KINDS[kind]
    figures: dict[str, Any] = {"tissue": "ground-glass", "false_percent": false}
    if dice is not None:
        figures |= {"dice": dice, "any_dice": dice, "lesions": 4, "found": 0.5, "named": {}, "held": 0.9}
    rival = {**figures, "false_percent": 7.0} | ({"dice": 0.2} if dice is not None else {})
    place = {"host": known.host, "seed": known.seed, "truth_sha256": "abc"}
    return {"kind": kind, "tissue": "ground-glass", **place, "scores": {OURS: figures, "thresholds": rival}}


DISEASE = next(name for name, kind in painted_ct.KINDS.items() if kind.tissue == GROUND_GLASS)
NO_DISEASE = next(name for name, kind in painted_ct.KINDS.items() if kind.negative)


def outcome(folder: Path, row: dict[str, Any]) -> Outcome:
    done = Outcome(Plan(folder), seconds=600.0)
    done.facts = {"commit": "c", "weights_sha256": "w", "model": "m", "hosts": ["ct/x"], "lesion_seeds": [1]}
    done.facts |= {"segmentation_seed": 0, "trained_on": {"P001": True}}
    healthy = {"name": "ct/normal001", "ours": 0.5, "thresholds": 8.7, "others": {"thresholds": 9.1}}
    painted = [painted_row(NO_DISEASE, None, 3.0), painted_row(DISEASE, 0.6, 1.0)]
    done.rows = {"readings": [row], "painted": painted, "healthy": [healthy]}
    return done


def test_results_and_page_lead_with_read_ct(tmp_path: Path, row: dict[str, Any]) -> None:
    summary.write_all(tmp_path, outcome(tmp_path, row))
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    fields = {
        "dice",
        "recall",
        "precision",
        "lesions",
        "found",
        "named",
        "healthy_disease_percent",
        "slice_auc",
    }
    assert fields | {"use", "trained_on"} <= set(written["readings"]["P001"]["A"])
    assert (written["readings"]["P001"]["A"]["use"], written["readings"]["P001"]["A"]["trained_on"]) == (
        "tuning",
        True,
    )
    both = [written["readings"]["P001"][reader]["dice"] for reader in "AB"]
    assert written["readings_mean_dice"] == pytest.approx(np.mean(both), abs=1e-4)
    assert set(written["second_reader"]["P001"]) == {"A", "B"}
    assert written["painted"] == {DISEASE: 0.6}
    assert written["painter"]["kinds"][NO_DISEASE]["truth_sha256"] == "abc"
    assert written["baselines"]["thresholds"]["painted"] == {DISEASE: 0.2}
    assert written["baselines"]["thresholds"]["healthy_disease_percent"] == 9.1
    assert written["baselines"]["d6e853b"]["readings_mean_dice"] == 0
    assert written["baselines"]["d6e853b"]["dsc"]["cavity"] is None, "not measured, but every baseline has it"
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    sections = [line for line in page.splitlines() if line.startswith("## ")]
    assert sections[:2] == ["## Disease that readers marked in real CT", "## Painted disease"]
    assert "| P001 | A | tuning | yes | **" in page and "![pictures/P001.png](pictures/P001.png)" in page
    assert f"| {DISEASE} | " in page and "| 50 % of 4 | 0.90 | 1.0 | 0.20 |" in page
    assert f"| {NO_DISEASE} | " in page and "| 3.0 | 7.0 % |" in page


def test_what_a_later_run_leaves_out_is_of_the_earlier_one(tmp_path: Path, row: dict[str, Any]) -> None:
    summary.write_all(tmp_path, outcome(tmp_path, row))
    later = outcome(tmp_path, row)
    later.facts["commit"], later.rows = "later", {"painted": later.rows["painted"]}
    summary.write_all(tmp_path, later)
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["commit"] == "later" and written["carried_over"]["readings"] == "c"
    assert "painted" not in written["carried_over"]
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "at commit `c`, by the model of then: `baselines.dsc`, `baselines.healthy" in page
    assert "![pictures/P001.png]" in page


def test_the_picture_shows_ct_marks_and_labels(tmp_path: Path, row: dict[str, Any]) -> None:
    from PIL import Image

    from DiffSegLungLib.evaluation.reading_figures import draw_readings

    draw_readings(tmp_path, [row])
    picture = np.asarray(Image.open(tmp_path / "P001.png").convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    assert width == 1200 and (tmp_path / "P001.png").stat().st_size < 400_000
    yellow = (picture[..., 0] > picture[..., 2] + 60) & (picture[..., 1] > picture[..., 2] + 60)
    upper = yellow[: int(0.85 * height)]
    thirds = [part.sum() for part in np.array_split(upper, 3, axis=1)]
    assert thirds[0] == 0 and 0 < thirds[1] < thirds[2], "nothing on the CT, an outline, an area"


def test_the_best_of_the_thresholds_and_the_second_reader_are_targets(row: dict[str, Any]) -> None:
    lines = {line[0]: line for line in targets.targets(summary.results(outcome(Path(), row)))}
    best = next(
        line for name, line in lines.items() if name.startswith("read CT, mean Dice, above thresholds")
    )
    assert not best[3], "thresholds find this haze on both slices"
    assert "P001, Dice beside a second reader" in lines


def test_the_command_prints_dice_by_reader(row: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    command._print_readings(summary.results(outcome(Path(), row)))
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].split("   ")[0] == "Dice on read CT"
        and "d6e853b" in lines[0]
        and "second reader" in lines[0]
    )
    dice = row["scores"]["A"][OURS]["dice"]
    assert lines[1].startswith("P001 A") and lines[1].split()[2] == f"{dice:.2f}"
    assert lines[-1].startswith("mean over CT: 0.")


def test_a_crop_is_run_with_its_mask_and_a_whole_ct_without(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, Path | None]] = []
    monkeypatch.setattr(read_ct, "segment", lambda path, lungs, model: asked.append((path, lungs)))
    for ct in (P001, ReadCt("train/elastix_lung_baseline", "reported", cropped=True)):
        read_ct.segment_read(ct, Path("data"), None)
    crop = Path("data/train/elastix_lung_baseline_lungmask.nii.gz")
    assert asked == [
        (Path("data/train/P001.nii.gz"), None),
        (Path("data/train/elastix_lung_baseline.nii.gz"), crop),
    ]


def test_a_painted_ct_is_scanned_on_its_own_grid_in_whole_hu() -> None:
    volume = result().volume
    hu = np.tile(volume.hu, (3, 1, 1))
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    case: Any = SimpleNamespace(volume=replace(volume, hu=hu))
    read = load_volume(painted_ct.as_scanned(case))
    assert read.spacing == pytest.approx(SPACING)
    assert np.array_equal(read.hu, np.rint(hu))


def test_each_painted_kind_has_frozen_labels_of_its_own() -> None:
    names = [painted_ct.frozen_name(kind) for kind in painted_ct.KINDS]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names), "names of files"
