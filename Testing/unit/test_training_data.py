"""What is trained on: store, sources, split, and augmentation that keeps HU physical."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.training import store
from DiffSegLungLib.training.patches import TURN_MARGIN, build_sampler, turn
from DiffSegLungLib.training.sources import find_ct, read_persons, require_different_names
from DiffSegLungLib.training.split import describe_split, read_split, split_patients, write_split


def lung_and_wall(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy lung in noisy soft tissue."""
    random = np.random.default_rng(seed)
    mask = np.zeros((40, 70, 70), bool)
    mask[10:30, 25:45, 25:45] = True
    hu = np.where(mask, -850.0, 40.0) + 40 * random.standard_normal(mask.shape)
    return np.rint(hu).astype(np.int16), mask


# --- store -----------------------------------------------------------------------------------------------


def test_hu_in_and_near_the_lungs_are_stored_exactly() -> None:
    from scipy import ndimage

    hu, mask = lung_and_wall()
    back, lungs = store._decode(store._encode(hu, mask, spacing=1.5))
    away = ndimage.distance_transform_edt(~mask) * 1.5
    assert back.dtype == np.int16 and np.array_equal(lungs, mask)
    assert np.array_equal(back[away <= store.EXACT_MM], hu[away <= store.EXACT_MM])
    change = np.abs(back.astype(int) - hu)
    assert change[away <= store.NEAR_MM].max() == store.NEAR_STEP_HU // 2
    assert change.max() <= store.FAR_STEP_HU // 2


def test_the_whole_range_of_int16_survives() -> None:
    hu = np.random.default_rng(0).integers(-(2**15), 2**15, (4, 5, 6)).astype(np.int16)
    back, _ = store._decode(store._encode(hu, np.ones(hu.shape, bool), 1.5))
    assert np.array_equal(back, hu)


def test_the_store_maps_files_and_keeps_persons(tmp_path: Path) -> None:
    hu, mask = lung_and_wall()
    facts = '{"name": "a", "spacing_mm": 1.5, "person": "A"}'
    np.savez_compressed(tmp_path / "a.npz", facts=facts, **store._encode(hu, mask, 1.5))  # type: ignore[arg-type]
    (patient,) = store.load_store(tmp_path)
    assert isinstance(patient.hu, np.memmap) and isinstance(patient.mask, np.memmap)
    assert (patient.name, patient.person) == ("a", "A")
    assert np.array_equal(patient.hu[mask], hu[mask])
    decoded = tmp_path / "decoded" / "a.hu.npy"
    before = decoded.stat().st_mtime_ns
    store.load_store(tmp_path)
    assert decoded.stat().st_mtime_ns == before, "decoded once"


def test_half_the_bytes_of_a_plain_archive(tmp_path: Path) -> None:
    hu, mask = lung_and_wall()
    np.savez_compressed(tmp_path / "plain.npz", hu=hu, mask=mask)
    np.savez_compressed(tmp_path / "ours.npz", **store._encode(hu, mask, 1.5))  # type: ignore[arg-type]
    assert (tmp_path / "ours.npz").stat().st_size < 0.6 * (tmp_path / "plain.npz").stat().st_size


# --- sources ---------------------------------------------------------------------------------------------


def test_a_folder_gives_its_ct_files_and_dicom_folders(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nrrd", "a.seg.nrrd", "notes.txt", "sub/c.mha", "dicom/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name == "dicom/1" else b"")
    found = find_ct([tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "a.nrrd",
        "b.nii.gz",
        "dicom",
        "sub/c.mha",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnusableInputError, match="no CT in"):
        find_ct([tmp_path / "empty"])
    with pytest.raises(UnusableInputError, match="More than one CT is named a"):
        require_different_names([Path("x/a.nrrd"), Path("y/a.mha")])


def test_the_table_of_patients(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("ct,patient\nfirst.nii.gz,A\nsecond,A\n")
    assert read_persons(table) == {"first": "A", "second": "A"}
    assert read_persons(None) == {}
    table.write_text("file,patient\nfirst,A\n")
    with pytest.raises(UnusableInputError, match="columns ct and patient"):
        read_persons(table)


def test_a_label_map_in_a_folder_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from DiffSegLungLib.app import cli

    image = sitk.GetImageFromArray(np.zeros((20, 20, 20), np.uint8))
    sitk.WriteImage(image, str(tmp_path / "mask.nrrd"))
    words = ["train", "prepare", str(tmp_path), "--store", str(tmp_path / "store"), "--progress", "none"]
    assert cli.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "left out: mask.nrrd" in lines[0] and "no prepared CT" in lines[1]


# --- split -----------------------------------------------------------------------------------------------


def test_the_split_is_by_patient_and_always_the_same(tmp_path: Path) -> None:
    names = [f"patient {number}" for number in range(10)]
    split = split_patients([*names, *names], share=0.3)
    assert sum(split.values()) == 3 and len(split) == 10
    assert split == split_patients(reversed(names), share=0.3)
    assert split != split_patients(names, share=0.3, seed=1)
    write_split(tmp_path, split, 0)
    assert read_split(tmp_path) == split
    assert describe_split(split).startswith("7 patients to train on, 3 held back (patient ")


def test_new_patients_do_not_move_the_known_ones() -> None:
    first = split_patients([f"{number}" for number in range(6)], share=0.34)
    more = split_patients([f"{number}" for number in range(12)], share=0.34, known=first)
    assert {name: more[name] for name in first} == first
    assert sum(more.values()) == 4


def test_small_splits() -> None:
    assert split_patients(["a"]) == {"a": False}
    assert sum(split_patients(["a", "b"]).values()) == 1
    assert sum(split_patients(["a", "b", "c"], share=0.0).values()) == 0
    assert sum(split_patients(["a", "b", "c"], share=0.9).values()) == 2, "one stays for training"


# --- augmentation ----------------------------------------------------------------------------------------


def test_turning_keeps_hu_and_texture() -> None:
    random = np.random.default_rng(0)
    sides = tuple(side + 2 * TURN_MARGIN for side in (16, 32, 32))
    hu = random.normal(-860, 30, sides).astype(np.float32)
    wall = TURN_MARGIN + 16
    hu[:, :, wall:] += 800
    mask = np.zeros(sides, np.float32)
    mask[:, :, :wall] = 1
    moved = 0
    for _ in range(20):
        turned, lungs = turn(hu, mask, random)
        assert turned.shape == lungs.shape == (16, 32, 32) and set(np.unique(lungs)) <= {0.0, 1.0}
        assert turned.min() >= hu.min() and turned.max() <= hu.max()
        inside = turned[:, :, :12]
        assert inside.mean() == pytest.approx(-860, abs=3)
        # White noise is the hardest: a linear interpolation leaves 18 of it.
        assert 22 < inside.std() < 33, "cubic interpolation keeps the grain"
        moved += not np.array_equal(lungs, mask[4:-4, 4:-4, 4:-4])
    assert moved > 10


def test_ranks_share_the_work_of_one_draw() -> None:
    patient = store.Patient("a", *lung_and_wall())
    sampler = build_sampler([patient], (16, 16, 16))
    whole = sampler.draw(6, np.random.default_rng(4))
    parts = [sampler.draw(6, np.random.default_rng(4), own) for own in (slice(0, 3), slice(3, 6))]
    for number in (0, 1):
        assert np.array_equal(whole[number], np.concatenate([part[number] for part in parts]))


def test_without_augmentation_a_patch_is_as_scanned() -> None:
    hu, mask = lung_and_wall()
    sampler = build_sampler([store.Patient("a", hu, mask)], (16, 16, 16))
    patches, _ = sampler.draw(4, np.random.default_rng(0), augmented=False)
    values = set(np.unique(hu).astype(float))
    assert set(np.unique(patches).tolist()) <= values
