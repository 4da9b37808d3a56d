"""Killed, out of disk or memory, two at once, without weights, packages, network: said, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import UnusableInputError, is_out_of_memory
from DiffSegLungLib.io import atomic
from DiffSegLungLib.models import store as models
from DiffSegLungLib.representation import features
from DiffSegLungLib.representation.features import _in_batches_that_fit
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.representation.tissue_unet import TissueUNet
from DiffSegLungLib.stages import STAGES
from Testing.robustness.scans import finer, image_of, phantom, save
from Testing.unit.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
BY_MIXTURE = ("features", "mixture")
"""Stages of a model without the network that decides."""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and limits of POSIX")
LIMITED = (
    "import resource, signal, sys; from DiffSegLungLib.app.cli import main; {limit}; "
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lower right corner of the chest's lungs with its mask: a segmentation of seconds."""
    folder = tmp_path_factory.mktemp("inputs")
    box = (slice(16, 36), slice(18, 44), slice(10, 30))
    save(image_of(phantom().hu[box]), folder / "ct.nrrd")
    save(sitk.Cast(image_of(phantom().sides[box] > 0), sitk.sitkUInt8), folder / "mask.nrrd")
    return folder


def words(inputs: Path, output: Path, *more: str) -> list[str]:
    return [
        "segment", str(inputs / "ct.nrrd"), "--lungs", str(inputs / "mask.nrrd"), "-o", str(output),
        "--quality", "fast", "--device", "cpu", "--progress", "json", *more,
    ]  # fmt: skip


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "DiffSegLungLib", *command]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options
    )


def one_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1 and lines[0].startswith("diffseglung: error: "), text
    return lines[0]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# --- killed ----------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES, "writing"])
def test_killed_at_any_stage_nothing_half_written_stays(inputs: Path, tmp_path: Path, stage: str) -> None:
    """Killed: no finished file.  Run again: whole, and what the killed one left is gone."""
    output = tmp_path / "out" / "r.seg.nrrd"
    output.parent.mkdir()
    model = ["--model", str(write_tiny_model(tmp_path / "tiny", 1.5))] if stage in BY_MIXTURE else []
    with start(words(inputs, output, "--uncertainty", str(output.parent / "u.nrrd"), *model)) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["stage"] == stage:
                child.send_signal(signal.SIGKILL)
                break
        child.wait()
    assert child.returncode == -signal.SIGKILL
    finished = [path.name for path in output.parent.iterdir() if not path.name.startswith(".")]
    assert finished == [] or stage == "writing"
    assert "r.manifest.json" not in finished, "the manifest comes last"
    assert cli.main(words(inputs, output)) == 0
    assert hidden(output.parent) == []
    assert sitk.ReadImage(str(output)).GetSize() == sitk.ReadImage(str(inputs / "ct.nrrd")).GetSize()


WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from DiffSegLungLib.io.atomic import write_together

def write(path):
    path.write_text("half")

def die(path):
    path.write_text("ha")
    os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
write_together({folder / "m.json": write, folder / "r.nrrd": die})
"""


@POSIX
def test_killed_while_it_writes_the_next_run_clears_up(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2 == len(list(tmp_path.iterdir()))
    atomic.write_text(tmp_path / "other.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_files_that_others_write_at_this_moment_are_left_alone(tmp_path: Path) -> None:
    from_another_computer = tmp_path / ".partial-abcdef-1-00000000-r.nrrd"
    from_another_computer.write_text("half")
    with atomic.atomic_path(tmp_path / "a.txt") as ours:
        ours.write_text("half")
        atomic.write_text(tmp_path / "b.txt", "whole")
        assert ours.exists()
    assert from_another_computer.exists()
    long_ago = time.time() - 2 * atomic.OLD_SECONDS
    os.utime(from_another_computer, (long_ago, long_ago))
    atomic.write_text(tmp_path / "c.txt", "whole")
    assert not from_another_computer.exists()


def test_a_clock_that_jumps_forward_harms_no_file_of_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic.atomic_path(tmp_path / "a.txt") as ours:
        ours.write_text("half")
        now = time.time()
        monkeypatch.setattr(atomic.time, "time", lambda: now + 10 * atomic.OLD_SECONDS)
        atomic.write_text(tmp_path / "b.txt", "whole")
        assert ours.exists()
    assert (tmp_path / "a.txt").read_text() == "half"


def test_what_a_dead_process_left_goes_though_the_clock_was_put_back(tmp_path: Path) -> None:
    """The file is of tomorrow by the clock of today; its process is gone."""
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    tomorrow = time.time() + 86400
    for left in tmp_path.iterdir():
        os.utime(left, (tomorrow, tomorrow))
    atomic.write_text(tmp_path / "other.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_duration(inputs: Path, tmp_path: Path) -> None:
    """The wall clock jumps by ten hours at every look; seconds come from the clock that only rises."""
    code = (
        "import itertools, sys, time; jumps = itertools.count(); real = time.time; "
        "time.time = lambda: real() + 36000 * (-1) ** next(jumps) * next(jumps); "
        "from DiffSegLungLib.app.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *words(inputs, tmp_path / "r.seg.nrrd")]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    took = time.monotonic() - started
    assert (done.returncode, done.stderr) == (0, "")
    seconds = json.loads((tmp_path / "r.manifest.json").read_text())["seconds"]
    assert all(0 <= each <= took for each in seconds.values()), seconds


# --- two at once -----------------------------------------------------------------------------------------

TWO_FILES = """
import sys, time
from pathlib import Path
from DiffSegLungLib.io.atomic import write_together
folder, who = Path(sys.argv[1]), sys.argv[2]
for _ in range(60):
    write_together({folder / "m.json": lambda path: path.write_text(who),
                    folder / "r.nrrd": lambda path: path.write_text(who)})
"""


def test_two_processes_on_one_output_leave_the_files_of_one(tmp_path: Path) -> None:
    line = [sys.executable, "-c", TWO_FILES, str(tmp_path)]
    pair = [subprocess.Popen([*line, who], cwd=ROOT) for who in ("first", "second")]
    assert [child.wait() for child in pair] == [0, 0]
    assert (tmp_path / "m.json").read_text() == (tmp_path / "r.nrrd").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "r.nrrd"]


# --- weights ---------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be damaged."""
    return Path(shutil.copytree(models.find(), tmp_path / "model"))


def spoil(model: Path, how: str) -> None:
    weights = model / models.WEIGHTS
    if how == "missing":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "swapped":
        shutil.copy(model / models.LUNGS, weights)
    elif how == "of another version":
        text = (model / models.DESCRIPTION).read_text()
        (model / models.DESCRIPTION).write_text(text.replace('"format": 1', '"format": 99'))
    elif how == "without description":
        (model / models.DESCRIPTION).unlink()
    else:
        (model / models.DESCRIPTION).write_text("{")


@pytest.mark.parametrize(
    "how", ["missing", "truncated", "swapped", "of another version", "without description", "garbled"]
)
def test_weights(
    model: Path, inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    spoil(model, how)
    (tmp_path / "out").mkdir()
    status = cli.main(words(inputs, tmp_path / "out/r.seg.nrrd", "--model", str(model)))
    assert status == 3
    assert "install" in one_line(capfd.readouterr().err) or how in (
        "of another version",
        "without description",
    )
    assert list((tmp_path / "out").iterdir()) == []


# --- packages and network --------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules[{name!r}] = None
from DiffSegLungLib.app.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "SimpleITK", "scipy", "pandas", "safetensors", "numpy"])
def test_a_missing_package_is_named(inputs: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", WITHOUT.format(name=name), *words(inputs, tmp_path / "r.seg.nrrd")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    assert f"package {name}" in one_line(done.stderr) and "pip" in done.stderr
    assert list(tmp_path.iterdir()) == []


def newer(folder: Path, package: str) -> dict[str, str]:
    """An environment in which a package says that it is of a version nobody has tried."""
    facts = folder / f"{package}-999.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 999.0\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


@pytest.mark.slow
def test_a_package_that_is_too_new_is_said_and_does_not_stop(inputs: Path, tmp_path: Path) -> None:
    environment = newer(tmp_path, "scipy")
    program = [sys.executable, "-m", "DiffSegLungLib"]
    done = subprocess.run([*program, "check"], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0 and "untried" in next(
        line for line in done.stdout.splitlines() if line.strip().startswith("scipy")
    )
    command = [*program, *words(inputs, tmp_path / "r.seg.nrrd")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "r.manifest.json").read_text())["software"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ("del scipy.ndimage.label", 3, "cannot import name 'label'"),
        ("scipy.ndimage.gaussian_filter = None", 1, "TypeError"),
    ],
)
def test_a_fault_of_a_package_that_is_too_new_names_it(
    inputs: Path, tmp_path: Path, change: str, status: int, sentence: str
) -> None:
    """What a new version took away, or does otherwise."""
    code = f"import sys, scipy.ndimage; {change}; from DiffSegLungLib.app.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words(inputs, tmp_path / "r.seg.nrrd")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=newer(tmp_path, "scipy"),
    )
    line = one_line(done.stderr)
    assert done.returncode == status and sentence in line, line
    assert "Newer than what was tried: scipy 999.0 (tried: " in line and "install the tried versions" in line


@pytest.mark.slow
def test_without_any_network(inputs: Path, tmp_path: Path) -> None:
    """In a network of its own that holds nothing, not even this computer's own address."""
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("networks cannot be parted here")
    line = [*unshare, sys.executable, "-m", "DiffSegLungLib", *words(inputs, tmp_path / "r.seg.nrrd")]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "r.manifest.json").exists()


# --- disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if (
        not hasattr(os, "geteuid")
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@POSIX
@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(inputs: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(255 * 1024))
    with start(
        words(inputs, small_disk / "r.seg.nrrd", "--uncertainty", str(small_disk / "u.nrrd"))
    ) as child:
        _, errors = child.communicate()
    assert child.returncode == 2 and "has space" in one_line(errors)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@POSIX
@pytest.mark.slow
def test_a_disk_that_fills_midway(inputs: Path, small_disk: Path) -> None:
    with start(
        words(inputs, small_disk / "r.seg.nrrd", "--uncertainty", str(small_disk / "u.nrrd"))
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["stage"] == "features" and not (small_disk / "filler").exists():
                (small_disk / "filler").write_bytes(bytes(251 * 1024))
        errors = child.stderr.read() if child.stderr else ""
    assert child.returncode == 2 and "has space" in one_line(errors)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@POSIX
@pytest.mark.slow
def test_a_file_that_may_not_grow(inputs: Path, tmp_path: Path) -> None:
    limit = (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))"
    )
    command = [sys.executable, "-c", LIMITED.format(limit=limit), *words(inputs, tmp_path / "r.seg.nrrd")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Cannot write" in one_line(done.stderr)
    assert list(tmp_path.iterdir()) == []


# --- memory ----------------------------------------------------------------------------------------------


def test_batches_grow_smaller_until_they_fit() -> None:
    """A card with room for three windows; the results are those of a large card."""
    tried: list[int] = []

    def compute(batch: Any) -> torch.Tensor:
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return torch.tensor([corner[0] for corner in batch])

    windows = [(index, 0, 0) for index in range(11)]
    done = [(list(batch), values.tolist()) for batch, values in _in_batches_that_fit(windows, 8, compute)]
    assert tried[:3] == [8, 4, 2]
    assert [corner for batch, _ in done for corner in batch] == windows
    assert [value for _, values in done for value in values] == list(range(11))


def test_one_window_that_does_not_fit_is_said() -> None:
    def compute(batch: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(_in_batches_that_fit([(0, 0, 0)] * 4, 4, compute))


class SmallCard:
    """A graphics card with room for so many windows, in the place of the network's own forward pass."""

    def __init__(self, room: int) -> None:
        self.room, self.passes = room, list[int]()
        self.forward = Student.embed_hounsfield

    def refuse(self, windows: int, *more: Any) -> None:
        """What torch says where so many windows at once have no room."""
        self.passes.append(windows)
        if windows > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def __call__(self, student: Student, patches: torch.Tensor, *more: Any) -> torch.Tensor:
        self.refuse(len(patches))
        return self.forward(student, patches, *more)


def with_room(room: int, patch: pytest.MonkeyPatch) -> SmallCard:
    card = SmallCard(room)
    patch.setattr(Student, "embed_hounsfield", lambda student, *more: card(student, *more))
    patch.setattr(features, "batch_size", lambda planned, device: 8)
    return card


def test_a_small_card_steps_down_says_so_and_gives_the_same(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mixture's network through the command line; its forward pass fails as torch's does on a full card."""
    model = ["--model", str(write_tiny_model(tmp_path / "tiny", 1.5))]
    assert cli.main(words(inputs, tmp_path / "large.seg.nrrd", *model)) == 0
    card = with_room(1, monkeypatch)
    assert cli.main(words(inputs, tmp_path / "small.seg.nrrd", *model)) == 0
    assert max(card.passes) > 1 and card.passes[-1] == 1
    assert "memory is short: 1 windows a pass" in caplog.text
    large, small = (sitk.ReadImage(str(tmp_path / f"{name}.seg.nrrd")) for name in ("large", "small"))
    differ = sitk.GetArrayFromImage(large) != sitk.GetArrayFromImage(small)
    assert differ.mean() < 0.001


@pytest.mark.parametrize("decides", ["network", "mixture"])
def test_a_card_without_room_for_one_window_is_said(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    decides: str,
) -> None:
    model = ["--model", str(write_tiny_model(tmp_path / "tiny", 1.5))] if decides == "mixture" else []
    card = with_room(0, monkeypatch)
    monkeypatch.setattr(TissueUNet, "forward", partial(card.refuse, 1))
    assert cli.main(words(inputs, tmp_path / "out" / "r.seg.nrrd", *model)) == 3
    assert "Not enough memory: close other programs, or use --device cpu" in one_line(
        capfd.readouterr().err.splitlines()[-1]
    )
    assert card.passes[-1] == 1 and list((tmp_path / "out").iterdir()) == []


def test_another_fault_is_not_taken_for_it() -> None:
    def compute(batch: Any) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(_in_batches_that_fit([(0, 0, 0)] * 4, 4, compute))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("Failed to allocate memory for image."), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (ImportError("x.so: undefined symbol"), False),
        (SystemError("error return without exception set"), True),
        (SystemError("bad argument to internal function"), False),
        (RuntimeError("damaged"), False),
        (KeyError("memory"), False),
    ],
    ids=str,
)
def test_a_lack_of_memory_is_known(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [40, 100, 200])
def test_without_memory_it_says_so(tmp_path: Path, megabytes: int) -> None:
    """The program has loaded its packages; then it gets so much more and no more, for a large CT."""
    save(finer((4, 4, 4)), tmp_path / "ct.nrrd")
    limit = (
        "import DiffSegLungLib.pipeline; import DiffSegLungLib.models.store as m; m.load(); "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        f"most = used + {megabytes} * 2**20; resource.setrlimit(resource.RLIMIT_AS, (most, most))"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    command = [sys.executable, "-c", LIMITED.format(limit=limit), "segment", str(tmp_path / "ct.nrrd")]
    command += ["-o", str(tmp_path / "out/r.seg.nrrd"), "--progress", "none", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 3, done.stderr
    assert "memory" in one_line(done.stderr)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_ct_that_memory_cannot_hold_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from DiffSegLungLib.io import image_files

    save(image_of(phantom().hu), tmp_path / "ct.nrrd")
    monkeypatch.setattr(image_files, "free_memory_mb", lambda: 1.0)
    assert cli.main(["segment", str(tmp_path / "ct.nrrd"), "-o", str(tmp_path / "r.nrrd")]) == 3
    assert "1 MB are free; close other programs" in one_line(capfd.readouterr().err.splitlines()[-1])


# --- many cases in one process ---------------------------------------------------------------------------


def test_an_output_that_cannot_be_written_takes_no_result_away(tmp_path: Path) -> None:
    """The old result stands where a new one cannot be written."""
    target = tmp_path / "r.seg.nrrd"
    target.write_text("the old one")

    def write(path: Path) -> None:
        path.write_text("new")

    with pytest.raises(UnusableInputError, match="Cannot write"):
        atomic.write_together({target: write, target / "below a file.csv": write})
    assert target.read_text() == "the old one" and hidden(tmp_path) == []
