"""Labels of an earlier state, results that are kept, and figures that are carried over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation import earlier, kept, study
from DiffSegLungLib.evaluation.frozen import FrozenLabels, freeze, write_manifest
from DiffSegLungLib.evaluation.study import Plan, Task
from DiffSegLungLib.tissues import FIBROSIS, HEALTHY

METHODS = ("d6e853b", "rules only")
FACTS = {"commit": "d6e853b", "made_by": "Testing/evaluation/freeze.py"}


def maps() -> dict[str, np.ndarray]:
    first = np.zeros((6, 20, 30), np.uint8)
    first[:, 5:15, 8:22] = HEALTHY
    second = first.copy()
    second[2:4, 7:9, 9:12] = FIBROSIS
    return dict(zip(METHODS, (first, second), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = {"P001": freeze(tmp_path, "P001", maps(), slices=[1, 3])}
    entries["painted_x"] = freeze(tmp_path, "painted_x", maps(), truth_sha256="abc")
    write_manifest(tmp_path, METHODS, entries, FACTS)
    return tmp_path


def test_frozen_labels_come_back_on_the_slices_that_were_kept(folder: Path) -> None:
    labels = FrozenLabels(folder).labels("P001")
    assert tuple(labels) == METHODS
    for method, whole in maps().items():
        assert np.array_equal(labels[method][[1, 3]], whole[[1, 3]])
        assert not labels[method][[0, 2, 4, 5]].any()
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["commit"] == "d6e853b"
    assert FrozenLabels(folder).labels("another CT") == {}


def test_labels_frozen_for_another_painted_truth_are_not_given(folder: Path) -> None:
    frozen = FrozenLabels(folder)
    assert np.array_equal(frozen.labels("painted_x", "abc")["rules only"], maps()["rules only"])
    assert frozen.labels("painted_x", "abd") == {} and frozen.labels("painted_x") == {}


def test_a_changed_frozen_file_is_refused_in_a_line(folder: Path) -> None:
    path = folder / "P001.xz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(
        MissingPartError, match=r"P001\.xz: the frozen labels are damaged \(SHA-256"
    ) as caught:
        FrozenLabels(folder)
    assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(MissingPartError, match="missing"):
        FrozenLabels(folder)


def test_a_damaged_manifest_is_refused_and_no_folder_holds_nothing(folder: Path, tmp_path: Path) -> None:
    assert FrozenLabels(tmp_path / "none").labels("P001") == {}
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(MissingPartError, match=r"manifest\.json is damaged"):
        FrozenLabels(folder)


def test_the_frozen_labels_of_this_project_are_what_their_manifest_says() -> None:
    frozen = FrozenLabels(study.FROZEN)
    assert frozen.methods == ("d6e853b", "rules only", "no network")
    sizes = [path.stat().st_size for path in study.FROZEN.glob("*.xz")]
    assert len(sizes) == len(frozen.entries) and max(sizes) < 4e6 and sum(sizes) < 10e6


# --- kept results ----------------------------------------------------------------------------------------


def test_a_kept_result_comes_back_as_it_was(tmp_path: Path) -> None:
    row = {"cases": {"dsc": {"healthy": float("nan")}, "slice": {"hu": np.arange(6, dtype=np.int16)}}}
    row["cases"]["volumes"] = [(1.5, np.float64(2.0))]
    store = kept.Kept(tmp_path)
    assert store.load("cases: ct/x, 1") is None
    store.save("cases: ct/x, 1", row)
    found = store.load("cases: ct/x, 1")
    assert found is not None and np.isnan(found["cases"]["dsc"]["healthy"])
    assert found["cases"]["slice"]["hu"].dtype == np.int16
    assert np.array_equal(found["cases"]["slice"]["hu"], np.arange(6))
    assert found["cases"]["volumes"] == [[1.5, 2.0]]
    assert store.load("cases: ct/x, 2") is None


def one(calls: Path) -> dict[str, Any]:
    """A task that tells by a file how often it ran."""
    calls.write_text(f"{calls.read_text(encoding='utf-8') if calls.exists() else ''}x", encoding="utf-8")
    return {"patches": {"auc": 0.9}}


def fails() -> dict[str, Any]:
    raise MissingPartError("out of paper")


def test_what_a_stopped_run_finished_is_not_run_again(tmp_path: Path) -> None:
    from functools import partial

    calls, store = tmp_path / "calls", kept.Kept(tmp_path / "kept")
    first = Task("patches", partial(one, calls))
    with pytest.raises(MissingPartError, match="out of paper"):
        list(study._results([first, Task("robustness", fails)], store))
    rows = list(study._results([first], store))
    assert rows == [("patches", {"patches": {"auc": 0.9}})]
    assert calls.read_text(encoding="utf-8") == "x"
    assert list(study._results([first], None)) == rows and calls.read_text(encoding="utf-8") == "xx"


def test_other_weights_data_or_frozen_labels_have_a_folder_of_their_own(tmp_path: Path) -> None:
    facts = {"weights_sha256": "a", "retrained": {}}
    folders = set()
    for data, weights, manifest in (("x", "a", ""), ("y", "a", ""), ("x", "b", ""), ("x", "a", "{}")):
        if manifest:
            (tmp_path / "manifest.json").write_text(manifest, encoding="utf-8")
        plan = Plan(tmp_path / data, kept=tmp_path / "kept", frozen=tmp_path)
        store = study._kept(plan, facts | {"weights_sha256": weights})
        assert store is not None
        folders.add(store.folder)
    assert len(folders) == 4
    assert study._kept(Plan(tmp_path), facts) is None


# --- earlier figures -------------------------------------------------------------------------------------


def test_figures_that_a_run_did_not_measure_are_carried_with_their_commit() -> None:
    before = {"commit": "old", "seconds": 5, "dsc": {"cavity": 0.9}, "hd95_mm": 6.0}
    before["baselines"] = {
        "thresholds": {"dsc": {"cavity": 0.0}, "readings_mean_dice": 0.1},
        "k-means": {"dsc": {}},
    }
    before["carried_over"] = {"hd95_mm": "oldest"}
    now = {"commit": "new", "seconds": 7, "readings_mean_dice": 0.6}
    now["baselines"] = {"thresholds": {"readings_mean_dice": 0.2}}
    merged = earlier.with_earlier(now, before)
    assert merged["commit"] == "new" and merged["seconds"] == 7 and merged["dsc"] == {"cavity": 0.9}
    assert merged["baselines"]["thresholds"] == {"readings_mean_dice": 0.2, "dsc": {"cavity": 0.0}}
    assert merged["baselines"]["k-means"] == {"dsc": {}}
    assert merged["carried_over"] == {"baselines.dsc": "old", "dsc": "old", "hd95_mm": "oldest"}
    assert now["baselines"] == {"thresholds": {"readings_mean_dice": 0.2}}, "the run's own stay as they are"
    assert earlier.with_earlier(now, {}) == now


def test_null_of_a_file_is_no_number(tmp_path: Path) -> None:
    assert earlier.load_results(tmp_path) == {}
    kept.write_json(tmp_path / "results.json", {"dsc": {"cavity": float("nan")}, "list": [np.float32(0.5)]})
    assert '"cavity": null' in (tmp_path / "results.json").read_text(encoding="utf-8")
    found = earlier.load_results(tmp_path)
    assert np.isnan(found["dsc"]["cavity"]) and found["list"] == [0.5]


def test_a_figure_that_nobody_measured_is_not_carried_over() -> None:
    rules = {"dsc": {"healthy": 0.9}, "readings_mean_dice": float("nan")}
    now = {"commit": "new", "baselines": {"rules": {}}}
    merged = earlier.with_earlier(now, {"commit": "old", "baselines": {"rules": rules}})
    assert merged["carried_over"] == {"baselines.dsc": "old"}
