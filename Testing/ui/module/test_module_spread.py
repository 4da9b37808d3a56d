"""Strokes that are spread from the panel and the console, on real MRML and with the files of a real run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import UnusableInputError
from Testing.ui.module import steps

PAINTED = "fibrosis"


@pytest.fixture
def kept(result: Any) -> Iterator[Any]:
    """The result with what its run kept."""
    from DiffSegLungSlicer import spreading

    assert spreading.isKept(result)
    yield result
    spreading.forgetAll()


def all_voxels(result: Any, volume: Any) -> dict[str, np.ndarray]:
    from DiffSegLungSlicer.measuring import TISSUE_LABELS

    return {key: steps.voxelsOf(result, key, volume) > 0 for key in TISSUE_LABELS}


def paint(result: Any, volume: Any, tissue: str = PAINTED) -> np.ndarray:
    """A stroke amid the consolidation, as the Segment Editor leaves it: other tissues lose what it takes."""
    dense = np.argwhere(steps.voxelsOf(result, "consolidation", volume) > 0)
    k, j, i = dense[np.abs(dense - dense.mean(axis=0)).sum(axis=1).argmin()]
    stroke = np.zeros(steps.voxelsOf(result, "consolidation", volume).shape, bool)
    stroke[k, j - 2 : j + 3, i - 2 : i + 3] = True
    for key, voxels in all_voxels(result, volume).items():
        if key != tissue and (voxels & stroke).any():
            steps.setVoxels(result, key, voxels & ~stroke, volume)
    if tissue in result.GetSegmentation().GetSegmentIDs():
        steps.setVoxels(result, tissue, all_voxels(result, volume).get(tissue, stroke) | stroke, volume)
    return stroke


def test_the_console_spreads_and_keeps_what_was_painted(module: Any, kept: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import results

    stroke = paint(kept, phantom)
    before = all_voxels(kept, phantom)
    moved = module.DiffSegLungLogic().spread(kept)
    after = all_voxels(kept, phantom)
    assert moved["consolidation"][PAINTED] > 0
    assert after[PAINTED][stroke].all()
    assert after[PAINTED].sum() > before[PAINTED].sum(), "it reached beyond the stroke"
    assert results.isCorrected(kept) and "correction" in results.manifestOf(kept)


def test_the_panel_spreads_and_one_undo_takes_it_back(
    panel: Any, kept: Any, phantom: Any, slicerWindow: Any
) -> None:
    import slicer

    from DiffSegLungSlicer import results

    slicerWindow("DiffSegLung")
    steps.show(panel, kept)
    steps.click(panel.ui.editButton)
    slicer.util.selectModule("DiffSegLung")
    paint(kept, phantom)
    before = all_voxels(kept, phantom)
    steps.click(panel.ui.spreadButton)
    steps.waitUntil(lambda: panel.ui.spreadButton.enabled)
    assert "Consolidation to Fibrosis" in panel.ui.spreadLabel.text
    assert not panel.ui.errorLabel.text
    assert "correction" in results.manifestOf(kept)
    steps.click(panel.ui.undoButton)
    after = all_voxels(kept, phantom)
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert "correction" not in results.manifestOf(kept)


def test_same_strokes_give_the_same_labels(module: Any, kept: Any, phantom: Any) -> None:
    paint(kept, phantom)
    strokes = all_voxels(kept, phantom)
    module.DiffSegLungLogic().spread(kept)
    first = all_voxels(kept, phantom)
    for key, voxels in strokes.items():
        steps.setVoxels(kept, key, voxels, phantom)
    module.DiffSegLungLogic().spread(kept)
    second = all_voxels(kept, phantom)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_what_is_no_lung_leaves_tissues_and_lungs(module: Any, kept: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import results

    segmentation = kept.GetSegmentation()
    segmentation.AddEmptySegment("Segment_1", "Not lung", (0.2, 0.2, 0.2))
    stroke = paint(kept, phantom, tissue="none")
    steps.setVoxels(kept, "Segment_1", stroke, phantom)
    module.DiffSegLungLogic().spread(kept)
    assert not any(voxels[stroke].any() for voxels in all_voxels(kept, phantom).values())
    lungs = kept.GetNodeReference(results.LUNGS_ROLE)
    for key in lungs.GetSegmentation().GetSegmentIDs():
        assert not (steps.voxelsOf(lungs, key, phantom) > 0)[stroke].any()


def test_what_is_drawn_meanwhile_stays_and_counts_the_next_time(kept: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import spreading

    paint(kept, phantom)
    job = spreading.Job(kept)
    healthy = all_voxels(kept, phantom)["healthy"]
    k, j, i = np.argwhere(healthy)[len(np.argwhere(healthy)) // 2]
    steps.setVoxels(kept, "healthy", healthy & (np.indices(healthy.shape)[2] != i), phantom)
    drawn = all_voxels(kept, phantom)["healthy"]
    while job.poll():
        pass
    job.finish()
    assert not all_voxels(kept, phantom)["healthy"][k, j, i] and not drawn[k, j, i]
    again = spreading.Job(kept)
    while again.poll():
        pass
    assert again.finish().spread.strokes_ml["vessel"] > 0, "erased lung counts as vessel"


def test_a_result_of_other_weights_is_one_sentence(module: Any, kept: Any, phantom: Any) -> None:
    from DiffSegLungSlicer import results

    text = kept.GetNodeReference(results.MANIFEST_ROLE)
    manifest = json.loads(text.GetText())
    manifest["model"]["sha256"]["tissues.safetensors"] = "0" * 64
    text.SetText(json.dumps(manifest))
    paint(kept, phantom)
    with pytest.raises(UnusableInputError, match="made by other weights"):
        module.DiffSegLungLogic().spread(kept)


def test_nothing_painted_is_one_sentence_and_changes_nothing(module: Any, kept: Any, phantom: Any) -> None:
    before = all_voxels(kept, phantom)
    with pytest.raises(UnusableInputError, match="Nothing was painted since the segmentation"):
        module.DiffSegLungLogic().spread(kept)
    after = all_voxels(kept, phantom)
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_a_result_without_its_ct_is_one_sentence(module: Any, kept: Any, phantom: Any) -> None:
    import slicer

    slicer.mrmlScene.RemoveNode(phantom)
    with pytest.raises(UnusableInputError, match="are gone: segment again"):
        module.DiffSegLungLogic().spread(kept)


def test_what_is_kept_goes_with_the_scene(panel: Any, kept: Any) -> None:
    import slicer

    from DiffSegLungSlicer import spreading

    folder = spreading._kept[kept.GetID()].folder
    assert (folder / spreading.FIELD).is_file()
    slicer.mrmlScene.Clear(0)
    assert not folder.exists() and not spreading._kept


def test_without_what_was_kept_the_network_reads_again(
    module: Any, result: Any, phantom: Any, panel: Any
) -> None:
    """As after loading a saved scene."""
    from DiffSegLungSlicer import results, spreading

    spreading.forgetAll()
    steps.show(panel, result)
    stroke = paint(result, phantom)
    steps.click(panel.ui.spreadButton)
    assert "reads the CT again" in panel.ui.spreadLabel.text
    steps.waitUntil(lambda: panel.ui.spreadButton.enabled, seconds=300)
    assert "to Fibrosis" in panel.ui.spreadLabel.text, panel.ui.errorLabel.text
    assert all_voxels(result, phantom)[PAINTED][stroke].all()
    first = results.manifestOf(result)["correction"]
    spreading.forgetAll()  # a second time: what the first spread gave is not taken for painted
    paint(result, phantom, "emphysema")
    module.DiffSegLungLogic().spread(result)
    second = results.manifestOf(result)["correction"]
    assert second["strokes_ml"].keys() == {PAINTED, "emphysema"} or second["strokes_ml"].keys() == {
        "emphysema"
    }
    assert sum(second["strokes_ml"].values()) < 3 * sum(first["strokes_ml"].values())
    spreading.forgetAll()
