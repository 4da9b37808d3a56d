"""The panel keeps up: strokes, lobes chosen late, reload, languages, and an end without waiting."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.ui.module import steps

# --- measures after strokes -------------------------------------------------------------------------------


def paint(result: Any, volume: Any, index: Any, key: str = "fibrosis") -> None:
    """A stroke: these voxels are of this tissue, and of no other, as the Segment Editor does it."""
    from DiffSegLungSlicer.measuring import TISSUE_LABELS

    for each in TISSUE_LABELS:
        voxels = steps.voxelsOf(result, each, volume)
        changed = voxels.copy()
        changed[index] = each == key
        if not np.array_equal(voxels, changed):
            steps.setVoxels(result, each, changed, volume)


def middle(piece: tuple[slice, ...], size: int) -> tuple[slice, ...]:
    return tuple(slice((each.start + each.stop) // 2, (each.start + each.stop) // 2 + size) for each in piece)


def test_strokes_are_measured_beside_the_window(
    shown: Any, result: Any, phantom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread for all strokes of a while; none of it in the window's own."""
    from DiffSegLungSlicer import measuring, results

    threads: list[Any] = []
    compute = measuring.compute

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return compute(*arguments)

    monkeypatch.setattr(measuring, "compute", watched)
    for size in (2, 3, 4):
        paint(result, phantom, middle(steps.RIGHT_PIECE, size))
    steps.waitUntil(lambda: results.isCorrected(result), 20)
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_a_stroke_while_measuring_is_measured_after_it(shown: Any, result: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import results

    section = shown.resultSection
    section.measureAgain()
    paint(result, phantom, middle(steps.RIGHT_PIECE, 4))
    section.measureAgain()
    steps.waitUntil(lambda: section._work is None and not section._again, 20)
    fibrosis = {key: ml for key, ml, _percent in results.tissueRows(result)}["fibrosis"]
    assert fibrosis == pytest.approx(
        steps.voxelsOf(result, "fibrosis", phantom).sum() * 2.5**3 / 1000, abs=0.01
    )


STROKES = {"in the lung": middle(steps.RIGHT_PIECE, 3), "beyond": np.s_[10:14, 10:14, 10:14]}


@pytest.mark.parametrize("index", STROKES.values(), ids=STROKES)
def test_only_what_a_stroke_touched_gives_the_same_numbers(
    result: Any, phantom: Any, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stroke within the lungs changes volumes by its own voxels; one beyond them makes all be measured."""
    import pandas

    from DiffSegLungLib.quantify import measures
    from DiffSegLungSlicer import measuring, results

    before = measuring.compute(results.taken(result))
    paint(result, phantom, index)
    taken = results.taken(result)
    whole = measuring.compute(taken)
    measured: list[int] = []
    measure = measures.measure

    def watched(labels: np.ndarray, *rest: Any) -> Any:
        measured.append(labels.size)
        return measure(labels, *rest)

    monkeypatch.setattr(measures, "measure", watched)
    touched = measuring.compute(taken, before)
    pandas.testing.assert_frame_equal(touched.table, whole.table, rtol=1e-9, atol=1e-9)
    for key, counts in whole.histograms.items():
        assert np.array_equal(touched.histograms[key], counts), key
    assert (max(measured) <= 27) is (index is STROKES["in the lung"])


def test_the_window_waits_for_a_copy_alone(module: Any, phantom: Any, result: Any) -> None:
    """Segments on the CT's grid are copied as they are; nothing is merged before the thread does it."""
    from DiffSegLungSlicer import exchange

    labels = {"healthy": 1, "consolidation": 5}
    layers = exchange.labelLayers(exchange.SegmentChoice(result), phantom, labels)
    assert all(part[2].size < np.prod(layers.shape) for part in layers.parts), "the layer's own box"
    merged = exchange.labelArray(exchange.SegmentChoice(result), phantom, labels)
    assert np.array_equal(layers.merged(), merged)


def test_lobes_chosen_after_the_run_are_measured(shown: Any, result: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import results

    lobes = steps.addSegments(phantom, {"lung_upper_lobe_left": steps.LEFT_PIECE}, "lobes")
    shown.ui.regionsSelector.setCurrentNode(lobes)
    steps.waitUntil(lambda: len(results.shareRows(result)) == 4, 20)
    assert results.shareRows(result)[-1][0] == "left upper lobe"
    assert not results.isCorrected(result)
    shown.ui.regionsSelector.setCurrentNode(None)
    steps.waitUntil(lambda: len(results.shareRows(result)) == 3, 20)


def test_profile_runs_from_apex_to_base(module: Any, phantom: Any, result: Any) -> None:
    """Also where the CT's slices go down: the level of a tissue is where the patient has it."""
    import vtk

    from DiffSegLungSlicer import measuring, results

    taken = results.taken(result)
    profile = measuring.compute(taken).profile
    matrix = vtk.vtkMatrix4x4()
    phantom.GetIJKToRASMatrix(matrix)
    slices = np.flatnonzero(steps.voxelsOf(result, "consolidation", phantom).any(axis=(1, 2)))
    lung = np.flatnonzero(taken.lungs.merged().any(axis=(1, 2)))
    fromBelow = (slices.mean() - lung[0] + 0.5) / (lung[-1] - lung[0] + 1)
    expected = 100 * (1 - fromBelow if matrix.GetElement(2, 2) > 0 else fromBelow)
    shares = profile["consolidation"].fillna(0.0)
    assert np.average(profile.index, weights=shares) == pytest.approx(expected, abs=12)
    turned = measuring.Taken(**{**vars(taken), "up": (taken.up[0], not taken.up[1])})
    mirrored = measuring.compute(turned).profile
    assert np.allclose(mirrored.to_numpy()[::-1], profile.to_numpy(), equal_nan=True)


def test_undo_from_the_panel(panel: Any, result: Any, phantom: Any, slicerWindow: Any) -> None:
    import slicer

    slicerWindow("DiffSegLung")
    steps.show(panel, result)
    steps.click(panel.ui.undoButton)
    assert "nothing to undo" in panel.ui.errorLabel.text
    before = steps.voxelsOf(result, "consolidation", phantom)
    steps.click(panel.ui.editButton)
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.saveStateForUndo()
    steps.setVoxels(result, "consolidation", np.zeros_like(before), phantom)
    slicer.util.selectModule("DiffSegLung")
    steps.click(panel.ui.undoButton)
    assert np.array_equal(steps.voxelsOf(result, "consolidation", phantom), before)


def test_references_name_their_source(panel: Any) -> None:
    text = panel.ui.referenceLabel.text
    assert text.count("https://doi.org/") == 3 and "4.3 %" in text


# --- reload, self test, choice of a CT --------------------------------------------------------------------


def test_reload_means_every_file(panel: Any) -> None:
    import sys

    import standin

    before = sys.modules["DiffSegLungSlicer.results"]
    reloaded = standin.reloadScriptedModule("DiffSegLung")
    assert sys.modules["DiffSegLungSlicer.results"] is not before
    assert sys.modules["DiffSegLungSlicer.ResultSection"].ResultSection is type(reloaded.resultSection)


def test_self_test_is_skipped_where_torch_is_missing(
    module: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import unittest

    import slicer

    from DiffSegLungSlicer import environment

    version = environment.installedVersion
    monkeypatch.setattr(
        environment, "installedVersion", lambda name: None if name == "torch" else version(name)
    )
    slicer.selfTests["DiffSegLung"]()
    suite = unittest.TestLoader().loadTestsFromTestCase(module.DiffSegLungTest)
    outcome = unittest.TextTestRunner().run(suite)
    assert outcome.wasSuccessful() and len(outcome.skipped) == outcome.testsRun > 0
    assert all("Python packages are missing: torch" in reason for _test, reason in outcome.skipped)


def test_a_ct_is_looked_for_among_new_volumes_only(
    panel: Any, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    module = sys.modules["DiffSegLung"]
    looked: list[Any] = []
    find = module.mostLikelyChestCt

    def watched(*nodes: Any) -> Any:
        looked.append(nodes)
        return find(*nodes)

    monkeypatch.setattr(module, "mostLikelyChestCt", watched)
    for _ in range(20):
        scene.AddNewNodeByClass("vtkMRMLTextNode")
    steps.goOn(0.2)
    assert looked == []


def test_a_loaded_ct_is_chosen_while_the_panel_is_open(panel: Any, phantom: Any) -> None:
    steps.goOn(0.2)
    assert panel.ui.inputSelector.currentNode() is phantom


# --- nobody's name, nobody's language ---------------------------------------------------------------------


def test_no_node_name_goes_into_a_temporary_folder(
    module: Any, phantom: Any, result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume is often called like the patient."""
    from DiffSegLungSlicer import exports
    from DiffSegLungSlicer.trainingSources import Sources

    phantom.SetName("SMITH JOHN")
    run = exports.reportRun(result, tmp_path / "report")
    names = [path.name for folder in steps.temporaryFolders() for path in folder.rglob("*")]
    run.cancel()
    assert names and not [name for name in names if "SMITH" in name]
    written = Sources([phantom, phantom]).write(tmp_path / "training")
    assert not [path.name for path in written if "SMITH" in path.name]


def test_what_the_library_says_can_be_translated(
    shown: Any, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, warnings and errors with what is filled in; a translation that lacks it is not taken."""
    from DiffSegLungSlicer import words

    known = {
        "Fibrosis": "Fibrose",
        "The kernel {0} is sharp; its noise adds false emphysema.": "Der Kernel {0} ist scharf.",
        "Slices are {0} mm thick; {1}": "Schichten von mm",
    }
    monkeypatch.setattr(words, "translate", lambda context, text: known.get(text, text))
    assert (
        words.said("The kernel B70f is sharp; its noise adds false emphysema.")
        == "Der Kernel B70f ist scharf."
    )
    assert (
        words.said("Slices are 5 mm thick; take thinner ones") == "Slices are 5 mm thick; take thinner ones"
    )
    assert words.said("something of the user's own") == "something of the user's own"
    shown.resultSection.refresh()
    assert steps.cell(shown, "fibrosis", 1).text() == "Fibrose"


def test_warnings_of_the_library_are_among_the_texts(module: Any) -> None:
    from DiffSegLungLib.io.acquisition import quality_warnings
    from DiffSegLungLib.lungs.warnings import missed_warnings
    from DiffSegLungLib.tissues import REPORTED
    from DiffSegLungSlicer import words

    said = [
        *quality_warnings((1.0, 1.0, 1.0), {"kernel": "B70f"}),
        *missed_warnings(np.ones((60, 60, 60), bool)),
    ]
    assert len(said) == 2
    for text in (*said, *(tissue.name for tissue in REPORTED)):
        assert any(pattern.fullmatch(text) for pattern, _template in words._templates()), text


# --- the end ----------------------------------------------------------------------------------------------


def test_an_end_does_not_wait_for_a_stray_process(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something that the computation started holds its pipes; Slicer closes all the same."""
    from DiffSegLungSlicer.childProcess import CANCELLED, ChildProcess

    (tmp_path / "sitecustomize.py").write_text(
        "import os, subprocess\n"
        "if not os.environ.get('STRAY'):\n"
        "    subprocess.Popen(['sleep', '25'], start_new_session=True, env={**os.environ, 'STRAY': '1'})\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = ChildProcess(["check", "--json"])
    steps.waitUntil(lambda: not child.isRunning() or len(steps.family(child.pid)) > 1, 30)
    steps.goOn(3.0)
    begun = time.monotonic()
    child.cancel()
    assert time.monotonic() - begun < 2.5
    assert child.exitStatus == CANCELLED
