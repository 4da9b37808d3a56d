"""The store of models: what was written is what is loaded, and what is damaged is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.app import cli
from DiffSegLungLib.decision.fusion import FusionSettings
from DiffSegLungLib.decision.mixture import Mixture, Projection
from DiffSegLungLib.decision.naming import NamingRule
from DiffSegLungLib.decision.regions import RegionSettings
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS
from DiffSegLungLib.representation.distillation import EMBEDDING
from DiffSegLungLib.representation.features import EmbeddingPlan
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import BY_LABEL

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "Resources" / "models" / "2026-12-ct10"
CHANNELS = [8, 8, 8, 8]
PLAN = EmbeddingPlan((16, 16, 16), (16, 8, 8), (10, 100), 4)
RULE = NamingRule(emphysema_below=-933.0)
FUSION = FusionSettings(steps=3)
REGIONS = RegionSettings(emphysema_ml=0.07)
FACTS = {
    "name": "tiny",
    "version": "0.0.1",
    "architecture": {"channels": CHANNELS, "hidden": 16, "clean": True},
    "spacing_mm": 1.75,
    "sharpness": 0.5,
}


def tiny_student() -> Student:
    torch.manual_seed(0)
    return Student(CHANNELS, hidden=16)


def tiny_mixture() -> tuple[Projection, Mixture, np.ndarray]:
    random = np.random.default_rng(0)
    projection = Projection(
        random.normal(size=256).astype(np.float32), random.normal(size=(256, 2)).astype(np.float32)
    )
    mixture = Mixture(
        np.array([0.75, 0.25]), random.normal(size=(2, 6)), np.stack([np.eye(6), 2 * np.eye(6)])
    )
    return projection, mixture, np.array([1, 5], np.uint8)


def write_tiny(folder: Path, **facts: object) -> Path:
    storage.write_student(folder, tiny_student().state_dict())
    storage.write_mixture(folder, *tiny_mixture())
    storage.write_description(folder, FACTS | facts, PLAN, RULE, FUSION, REGIONS)
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own store with one tiny model; no other is at hand."""
    monkeypatch.setattr(models, "search_folders", lambda: [tmp_path])
    write_tiny(tmp_path / "tiny")
    return tmp_path


def change_description(folder: Path, **changes: object) -> None:
    file = folder / models.DESCRIPTION
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(name: str) -> str:
    with pytest.raises(MissingPartError) as caught:
        models.load(name)
    message = str(caught.value)
    assert "\n" not in message and len(message) > 30
    return message


def test_a_model_comes_back_as_it_was_written(store: Path) -> None:
    model = models.load("tiny")
    projection, mixture, labels = tiny_mixture()
    assert (model.info.name, model.info.version, model.info.folder) == ("tiny", "0.0.1", store / "tiny")
    assert (model.spacing, model.sharpness) == (1.75, 0.5)
    assert (model.plan, model.rule, model.fusion, model.regions) == (PLAN, RULE, FUSION, REGIONS)
    assert np.array_equal(model.labels, labels)
    assert np.array_equal(model.projection.matrix, projection.matrix)
    assert np.array_equal(model.projection.mean, projection.mean)
    for name in ("weights", "means", "covariances"):
        stored = getattr(model.mixture, name)
        assert stored.dtype == np.float64 and np.array_equal(stored, getattr(mixture, name))
    for key, value in tiny_student().state_dict().items():
        assert torch.equal(model.student.state_dict()[key], value), key


def test_a_loaded_student_is_ready_for_inference(store: Path) -> None:
    student = models.load("tiny").student
    assert not student.training
    assert not any(parameter.requires_grad for parameter in student.parameters())
    x, timesteps = torch.randn(1, 2, 16, 16, 16), torch.tensor([10])
    with torch.inference_mode():
        numbers = torch.randn(1, CELL_NUMBERS, 2, 2, 2)
        expected = tiny_student().eval().embed(x, timesteps, numbers)
        assert torch.allclose(student.embed(x, timesteps, numbers), expected, atol=1e-5)


def test_a_model_is_found_by_its_folder_too(store: Path) -> None:
    assert models.verify(str(store / "tiny")).name == "tiny"


def test_the_checksums_are_those_of_the_files(store: Path) -> None:
    info = models.verify("tiny")
    assert info.sha256 == models.sha256_of(store / "tiny" / models.WEIGHTS)
    assert len(info.sha256) == 64


def test_the_checksum_that_reports_name_is_that_of_the_network_that_decides() -> None:
    info = models.verify()
    assert info.sha256 == models.sha256_of(info.folder / models.TISSUES)


def test_no_file_of_a_model_is_a_pickle(store: Path) -> None:
    names = sorted(file.name for file in (store / "tiny").iterdir())
    assert names == ["mixture.safetensors", "model.json", "weights.safetensors"]
    for file in (store / "tiny").glob("*.safetensors"):
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        assert isinstance(json.loads(content[8 : 8 + length]), dict)
        # Zip archives and bare pickles are what torch and numpy would run code from.
        assert content[:2] not in (b"PK", b"\x80\x02", b"\x80\x04")


@pytest.mark.parametrize("name", [models.WEIGHTS, models.MIXTURE])
def test_one_changed_byte_is_refused(store: Path, name: str) -> None:
    file = store / "tiny" / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    message = refusal("tiny")
    assert name in message and "damaged" in message and "install" in message


@pytest.mark.parametrize("name", [models.WEIGHTS, models.MIXTURE])
def test_a_truncated_file_is_refused(store: Path, name: str) -> None:
    file = store / "tiny" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert name in refusal("tiny")


@pytest.mark.parametrize("name", [models.WEIGHTS, models.MIXTURE])
def test_a_missing_file_is_refused(store: Path, name: str) -> None:
    (store / "tiny" / name).unlink()
    assert name in refusal("tiny")


def test_a_file_without_a_checksum_is_refused(store: Path) -> None:
    change_description(store / "tiny", sha256={})
    assert "SHA-256" in refusal("tiny")


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused(store: Path, number: object) -> None:
    change_description(store / "tiny", format=number)
    assert "format" in refusal(str(store / "tiny"))


@pytest.mark.parametrize("content", ["", "[1]", "{", "null"])
def test_a_description_that_is_none_is_refused(store: Path, content: str) -> None:
    (store / "tiny" / models.DESCRIPTION).write_text(content)
    refusal(str(store / "tiny"))


def test_weights_of_another_architecture_are_refused(store: Path) -> None:
    change_description(store / "tiny", architecture={"channels": [8, 8, 8, 16], "hidden": 16})
    assert "does not fit" in refusal("tiny")


@pytest.mark.parametrize("part", ["naming", "fusion", "regions"])
def test_settings_of_another_version_are_refused(store: Path, part: str) -> None:
    change_description(store / "tiny", **{part: {"unheard_of": 1.0}})
    assert "does not fit" in refusal("tiny")


@pytest.mark.parametrize("part", ["embedding", "spacing_mm", "architecture", "naming"])
def test_a_part_left_out_is_refused(store: Path, part: str) -> None:
    file = store / "tiny" / models.DESCRIPTION
    description = json.loads(file.read_text())
    del description[part]
    file.write_text(json.dumps(description))
    assert "does not fit" in refusal("tiny")


def test_an_unknown_name_is_told_what_is_at_hand(store: Path) -> None:
    write_tiny(store / "other", name="other")
    message = refusal("no-such-model")
    assert "no-such-model" in message and "tiny" in message and "other" in message


def test_without_any_model_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "search_folders", lambda: [tmp_path / "nowhere"])
    assert models.list_models() == []
    assert "none" in refusal("first")


def test_the_users_own_store_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "mine", name="mine")
    write_tiny(tmp_path / "first", name=models.DEFAULT, version="9.9")
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path))
    assert models.search_folders()[0] == tmp_path
    assert {"mine", models.DEFAULT} <= {info.name for info in models.list_models()}
    assert [info.version for info in models.list_models() if info.name == models.DEFAULT] == ["9.9"]
    assert models.verify().folder == tmp_path / "first"
    monkeypatch.delenv("DIFFSEGLUNG_MODELS")
    assert tmp_path not in models.search_folders()


def test_models_of_two_stores_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_tiny(one / "a", name="same", version="1")
    shutil.copytree(one, two)
    change_description(two / "a", version="2")
    monkeypatch.setattr(models, "search_folders", lambda: [one, two])
    assert [info.version for info in models.list_models()] == ["1"]


def test_one_damaged_description_does_not_hide_the_others(store: Path) -> None:
    broken = store / "broken"
    broken.mkdir()
    (broken / models.DESCRIPTION).write_text("{")
    assert models.load("tiny").info.name == "tiny"


@pytest.fixture(scope="module")
def shipped() -> models.Model:
    if not (SHIPPED / models.WEIGHTS).is_file():
        pytest.skip(f"no model lies in {SHIPPED.relative_to(ROOT)} yet")
    return models.load(str(SHIPPED))


def test_the_shipped_model_is_whole_and_the_default(
    shipped: models.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFFSEGLUNG_MODELS", raising=False)
    assert models.verify().folder == SHIPPED
    assert shipped.info.name == models.DEFAULT
    assert {file.name for file in SHIPPED.iterdir()} == {
        "weights.safetensors",
        "mixture.safetensors",
        "lungs.safetensors",
        "tissues.safetensors",
        "model.json",
        "MODEL_CARD.md",
    }


def test_the_shipped_mixture_is_sound(shipped: models.Model) -> None:
    mixture, inputs = shipped.mixture, EMBEDDING * len(shipped.plan.timesteps)
    assert shipped.projection.matrix.shape[0] == inputs == len(shipped.projection.mean)
    assert mixture.means.shape[1] == 4 + shipped.projection.matrix.shape[1]
    assert mixture.weights.sum() == pytest.approx(1)
    assert (np.linalg.eigvalsh(mixture.covariances) > 0).all()
    assert len(shipped.labels) == len(mixture.weights)
    assert {1, 2, 3, 4, 5} == set(shipped.labels.tolist()) <= set(BY_LABEL)


def test_the_shipped_model_says_what_the_design_asks_for(shipped: models.Model) -> None:
    description = shipped.description
    assert {"architecture", "hu_window", "spacing_mm", "embedding", "sha256", "training"} <= set(description)
    assert description["hu_window"] == [-1000, 400]
    assert description["licence"] and description["training_data"]


# --- removing --------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the user's own with two models, one of them of the shipped one's name."""
    write_tiny(tmp_path / "own" / "mine", name="mine")
    write_tiny(tmp_path / "own" / "other", name=models.DEFAULT, version="9.9")
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path / "own"))
    return tmp_path / "own"


def test_a_model_of_ones_own_is_removed_and_nothing_else(own: Path) -> None:
    assert cli.main(["models", "remove", "mine"]) == 0
    assert [folder.name for folder in own.iterdir()] == ["other"]
    assert models.remove(models.DEFAULT) == own / "other"
    assert list(own.iterdir()) == []
    assert (SHIPPED / models.DESCRIPTION).is_file()


def test_a_damaged_model_can_be_removed(own: Path) -> None:
    (own / "mine" / models.DESCRIPTION).write_text("{")
    assert models.remove("mine") == own / "mine"
    assert not (own / "mine").exists()


def test_a_shipped_model_is_not_removed(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models.remove(models.DEFAULT)  # the user's own one of that name
    for store in (str(own), str(SHIPPED.parent), str(SHIPPED.parent / ".." / SHIPPED.parent.name)):
        monkeypatch.setenv("DIFFSEGLUNG_MODELS", store)
        assert cli.main(["models", "remove", models.DEFAULT]) == 2
        assert "came with DiffSegLung" in capsys.readouterr().err
    assert models.verify().folder.resolve() == SHIPPED


@pytest.mark.parametrize("name", ["no-such-model", "..", "", "own", "../own/mine"])
def test_only_a_model_that_is_there_is_removed(own: Path, name: str) -> None:
    with pytest.raises(MissingPartError, match="in your own store"):
        models.remove(name)
    assert sorted(folder.name for folder in own.iterdir()) == ["mine", "other"]


def test_without_a_store_of_ones_own_nothing_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFSEGLUNG_MODELS", raising=False)
    with pytest.raises(MissingPartError, match="which is not set"):
        models.remove("mine")


def test_a_link_is_taken_away_and_not_what_it_points_to(own: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "elsewhere", name="linked")
    try:
        (own / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except OSError as error:
        pytest.skip(f"cannot make links here: {error}")
    models.remove("linked")
    assert not (own / "linked").exists() and (tmp_path / "elsewhere" / models.DESCRIPTION).is_file()
