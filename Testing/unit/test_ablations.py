"""``make ablations``: runs that differ in one thing, made once, from the history's stage one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation.study import RETRAINED
from DiffSegLungLib.models import store as models
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training.trainer import Settings
from Testing.evaluation import ablations
from Testing.evaluation.ablations import Ablation

TINY = Settings(channels=(8, 8, 8, 8), patch=(16, 16, 16), batch=2, steps=2, stage_two=0, warm_up=1)


def test_the_evaluation_looks_for_what_is_trained() -> None:
    assert {one.name for one in ablations.ablations()} == set(RETRAINED.values())


def test_the_short_runs_differ_in_the_warm_up_alone() -> None:
    by_name = {one.name: one for one in ablations.ablations()}
    first, second = (asdict(by_name[name].settings) for name in ("short-warm-up", "no-warm-up"))
    assert {key for key in first if first[key] != second[key]} == {"stage_two", "warm_up"}
    assert second["stage_two"] == 0 and first["learning_rate"] == first["learning_rate_two"]
    assert by_name["no-distillation"].settings.distillation == 0


def test_stage_one_is_the_one_of_the_history() -> None:
    try:
        begun = ablations.stage_one((16, 32, 48, 64))
    except MissingPartError:
        pytest.skip("this checkout has no history")
    torch.manual_seed(1)
    own, last, other = (
        torch.cat([one.detach().flatten() for one in student.unet.parameters()])
        for student in (begun, models.load().student, Student((16, 32, 48, 64)))
    )
    # The default model's distillation began here and moved the U-Net a little.
    assert 0 < float((own - last).norm() / own.norm()) < 0.3
    assert float((own - other).norm() / own.norm()) > 0.8


def test_another_stage_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "STAGE_ONE", "HEAD:Makefile")
    with pytest.raises(MissingPartError, match="clone the project with its history"):
        ablations.stage_one((16, 32, 48, 64))


def test_what_is_finished_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, work = tmp_path / "data", tmp_path / "work"
    (data / "train").mkdir(parents=True)
    ct = data / "train" / "a.nii.gz"
    assert cli.main(["phantom", str(ct), "--spacing", "3"]) == 0
    words = ["--store", str(work / "store"), "--spacing", "3", "--held-back", "0", "--progress", "none"]
    assert cli.main(["train", "prepare", str(ct), *words]) == 0
    monkeypatch.setattr(ablations, "FITTED_ON", ("a",))
    made = ablations.make(Ablation("tiny", TINY), data, work, work / "models", 1)
    assert models.verify(str(made)).name == "tiny"
    checkpoint = (work / "runs" / "tiny" / "checkpoint.safetensors").read_bytes()
    longer = Ablation("tiny", replace(TINY, steps=3))
    assert ablations.make(longer, data, work, work / "models", 1) == made
    assert (work / "runs" / "tiny" / "checkpoint.safetensors").read_bytes() == checkpoint
