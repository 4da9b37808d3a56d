"""Broken headers by the thousand: every one must be refused in one sentence or be read; nothing else.

``python -m Testing.robustness.fuzz [SECONDS] [FOLDER]`` with atheris where it is installed, which looks for
new paths through our own code, else with bytes changed at random.  A finding is saved in the folder and
printed; it becomes a case of ``test_fuzz``.  The library is imported late: atheris follows only what is
imported under its eyes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian

from DiffSegLungLib.errors import DiffSegLungError
from Testing.unit.dicom_series import write_series

SECONDS = 3600
SLOWEST_SECONDS = 20
MOST_BYTES = 6 << 30
CHILD = "--atheris"
"""Word of the command line: this is the process that atheris may end."""
DEFLATED = ".deflated.dcm"
HEADER_BYTES = {".nrrd": 900, ".mha": 400, ".nii": 352, ".nii.gz": 2000, ".dcm": 1200, DEFLATED: 1200}
"""How much of the start of a file is changed."""
NUMBERS = (
    b"0",
    b"-1",
    b"nan",
    b"inf",
    b"1e308",
    b"99999999999",
    b"4294967297",
    b"",
    b"\0",
    b"%n%s",
    b"\xff" * 8,
)


@cache
def seeds() -> dict[str, bytes]:
    """A small sound file of each format, by its ending."""
    hu = np.random.default_rng(0).integers(-1000, 300, (10, 9, 9)).astype(np.int16)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((1.0, 1.5, 2.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for ending in (".nrrd", ".mha", ".nii", ".nii.gz"):
            sitk.WriteImage(image, str(folder / f"ct{ending}"))
        write_series(folder / "dicom", hu.astype(np.float32))
        found = {
            ending: (folder / f"ct{ending}").read_bytes() for ending in (".nrrd", ".mha", ".nii", ".nii.gz")
        }
        path = sorted((folder / "dicom").iterdir())[0]
        found[".dcm"] = path.read_bytes()
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
        meta, data = _parts(path.read_bytes())
        return found | {DEFLATED: meta + zlib.decompress(data, -zlib.MAX_WBITS)}


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """The meta information of a DICOM file, whose length the header tells, and the rest."""
    end = 144 + int.from_bytes(content[140:144], "little")
    return content[:end], content[end:]


def as_file(content: bytes, ending: str) -> bytes:
    """What is written; `DEFLATED` is changed before it is packed, else a change would only break zlib."""
    if ending != DEFLATED:
        return content
    meta, data = _parts(content)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return meta + packer.compress(data) + packer.flush()


def changed(content: bytes, header: int, random: np.random.Generator) -> bytes:
    """One to six changes in the header: bytes, numbers, parts left out, doubled or moved, or the end cut."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 7))):
        at = int(random.integers(0, max(min(header, len(data)), 1)))
        length = int(random.integers(1, 17))
        kind = int(random.integers(0, 6))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            data[at : at + length] = random.bytes(length)
        elif kind == 2:
            data[at : at + length] = NUMBERS[int(random.integers(0, len(NUMBERS)))]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + 4 * length]
        elif random.random() < 0.2:
            del data[at:]
    return bytes(data)


def read(content: bytes, ending: str) -> str:
    """Read the bytes as a CT and as a mask; ``read`` or the sentence of the refusal.

    Raises:
        Exception: anything but a refusal: a finding.
    """
    from DiffSegLungLib.io.label_maps import load_mask
    from DiffSegLungLib.io.volume import load_volume

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"ct{ending}"
        path.write_bytes(as_file(content, ending))
        said = _outcome(lambda: load_volume(path))
        if ending.endswith(".dcm"):
            _outcome(lambda: load_volume(name))
        plain = sitk.GetImageFromArray(np.linspace(-1000, 200, 1000).reshape(10, 10, 10).astype(np.float32))
        _outcome(lambda: load_mask(path, load_volume(plain)))
        return said


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except (DiffSegLungError, MemoryError) as refusal:
        sentence = str(refusal)
        if "\n" in sentence:
            raise AssertionError(f"more than one line: {sentence!r}") from refusal
        return sentence or "memory"
    return "read"


class TooSlowError(Exception):
    """A header must not hold the reader up."""


def _too_slow(number: int, frame: object) -> None:
    raise TooSlowError(f"more than {SLOWEST_SECONDS} seconds")


def one(content: bytes, ending: str, folder: Path) -> bool:
    """Try one file; a finding is saved and printed.  Whether it was sound."""
    signal.setitimer(signal.ITIMER_PROF, SLOWEST_SECONDS)  # of the processor, not of the clock
    try:
        read(content, ending)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        name = folder / f"{hashlib.sha256(content).hexdigest()[:12]}{ending}"
        name.write_bytes(content)
        print(f"finding {name.name}: {type(error).__name__}: {error}", flush=True)
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True


def by_chance(seconds: float, folder: Path) -> tuple[int, int]:
    """Change bytes at random for so long; files tried and findings."""
    random, end = np.random.default_rng(int(time.time())), time.monotonic() + seconds
    tried = findings = 0
    while time.monotonic() < end:
        ending = list(seeds())[tried % len(seeds())]
        content = changed(seeds()[ending], HEADER_BYTES[ending], random)
        # A crash of a reader takes this process along: what was tried last lies here then.
        (folder / f"last{ending}").write_bytes(content)
        findings += not one(content, ending, folder)
        tried += 1
        if tried % 1000 == 0:
            print(f"{tried} files, {findings} findings", flush=True)
    return tried, findings


def by_atheris(seconds: float, folder: Path) -> None:
    """Look for new paths; libFuzzer ends this process and prints how many files were tried."""
    import atheris

    with atheris.instrument_imports(include=["DiffSegLungLib"]):
        import DiffSegLungLib.io.volume  # noqa: F401

    endings = list(seeds())

    def try_one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        ending = endings[provider.ConsumeIntInRange(0, len(endings) - 1)]
        rest = provider.ConsumeBytes(provider.remaining_bytes())
        random = np.random.default_rng(list(rest[:8]) or [0])
        content = changed(seeds()[ending], HEADER_BYTES[ending], random) if len(rest) < 64 else rest
        (folder / f"last{ending}").write_bytes(content)
        one(content, ending, folder)

    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for index, content in enumerate(seeds().values()):
        (corpus / f"seed{index}").write_bytes(content + bytes([index]))
    options = [
        f"-max_total_time={int(seconds)}",
        f"-artifact_prefix={folder}/",
        "-max_len=4000",
        "-rss_limit_mb=0",
        f"-timeout={3 * SLOWEST_SECONDS}",  # a reader that hangs in its own code hears no signal of Python's
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], try_one)
    atheris.Fuzz()


def in_a_child(seconds: float, folder: Path) -> int:
    """Run ``by_atheris`` in a process of its own, which libFuzzer ends or a reader's crash; its findings."""
    before = set(folder.iterdir())
    words = [sys.executable, "-m", "Testing.robustness.fuzz", str(seconds), str(folder), CHILD]
    status = subprocess.run(words).returncode
    if status:
        print(f"finding: the process ended with {status}; what it read last lies in {folder}/last.*")
    fresh = [path for path in set(folder.iterdir()) - before if path.is_file()]
    return sum(not path.name.startswith("last.") for path in fresh) + (status != 0)


def main() -> int:
    """Fuzz for the given time."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "fuzz")
    folder.mkdir(parents=True, exist_ok=True)
    with_atheris = importlib.util.find_spec("atheris") and not os.environ.get("DIFFSEGLUNG_FUZZ_BY_CHANCE")
    if with_atheris and CHILD not in sys.argv:
        findings = in_a_child(seconds, folder)
        print(f"Fuzzing with atheris: {findings} findings")
        return int(findings > 0)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    signal.signal(signal.SIGPROF, _too_slow)
    if with_atheris:
        by_atheris(seconds, folder)
    tried, findings = by_chance(seconds, folder)
    print(f"Fuzzing: {tried} files tried, {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
