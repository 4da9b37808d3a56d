"""Nothing that a file, a scene or a page brings is run, written elsewhere, or tells who the patient is."""

from __future__ import annotations

import ast
import base64
import json
import re
import struct
import sys
import tomllib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from packaging.requirements import Requirement

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.models import store as models
from Testing.robustness import audit
from Testing.robustness.scans import SIDE, chest, image_of, phantom, save
from Testing.unit.dicom_series import write_series
from Testing.unit.small_network import write_small_network_model
from Testing.unit.test_models import write_tiny

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("DiffSegLung", "DiffSegLungLib") for path in (ROOT / folder).rglob("*.py")
)

# --- the source ------------------------------------------------------------------------------------------

UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "cloudpickle",
    "imp",
    "telnetlib",
}
ARCHIVES = {"zipfile", "tarfile"}
NETWORK = {"urllib", "http", "requests", "httpx", "ftplib", "smtplib", "socket", "aiohttp", "xmlrpc"}
MAY_USE_NETWORK = {
    "DiffSegLungLib/app/serve": "the page in the browser, on this computer unless told otherwise",
    "DiffSegLungLib/training/distributed.py": "training on several computers that the user starts",
    "DiffSegLungLib/app/cohort/ray_pool.py": "a cluster that the user names",
}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
MAY_IMPORT_BY_NAME = "DiffSegLungLib/training/lock.py"  # a module of Windows or of POSIX, both by a constant
UNSAFE_METHODS = {
    ("torch", "load"), ("os", "system"), ("os", "popen"), ("tempfile", "mktemp"), ("pandas", "read_pickle"),
    ("pd", "read_pickle"), ("yaml", "load"), ("shutil", "unpack_archive"), ("torch", "save"),
}  # fmt: skip


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_source_is_looked_at() -> None:
    assert len(SOURCES) > 90


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_no_pickle_no_eval_no_shell(path: Path) -> None:
    assert not imported(path) & (UNSAFE_MODULES | ARCHIVES)
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        where = f"{place(path)}:{node.lineno}"
        if isinstance(node.func, ast.Name) and place(path) != MAY_IMPORT_BY_NAME:
            assert node.func.id not in UNSAFE_CALLS, where
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            assert (node.func.value.id, node.func.attr) not in UNSAFE_METHODS, where
            if (node.func.value.id, node.func.attr) == ("np", "load"):
                options = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert options.get("allow_pickle") == "False", where
        for word in node.keywords:
            assert not (word.arg == "shell" and ast.unparse(word.value) != "False"), where


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_no_network_but_where_the_user_starts_it(path: Path) -> None:
    if not any(place(path).startswith(allowed) for allowed in MAY_USE_NETWORK):
        assert not imported(path) & NETWORK


def test_every_page_template_escapes() -> None:
    templates = list((ROOT / "DiffSegLungLib").rglob("*.j2"))
    assert templates
    for path in templates:
        assert "|safe" not in path.read_text("utf-8").replace(" ", ""), path.name
    for path in SOURCES:
        text = path.read_text("utf-8")
        if "jinja2" in text and "Environment(" in text:
            assert "autoescape=True" in text


# --- dependencies ----------------------------------------------------------------------------------------


def all_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    texts = [text for extra in project["project"]["optional-dependencies"].values() for text in extra]
    listed = (ROOT / "DiffSegLung/Resources/requirements.txt").read_text("utf-8").splitlines()
    texts += [line for line in listed if line.strip() and not line.startswith("#")]
    return [Requirement(text) for text in texts]


def test_each_dependency_has_a_floor_and_a_ceiling() -> None:
    requirements = all_requirements()
    assert len(requirements) > 30
    for requirement in requirements:
        signs = {specifier.operator for specifier in requirement.specifier}
        assert signs in ({">=", "<"}, {"=="}), str(requirement)
        assert requirement.url is None, str(requirement)


# --- weights ---------------------------------------------------------------------------------------------


def with_checksum(folder: Path, name: str) -> None:
    """Enter the changed file's checksum: the attacker can do that, too."""
    description = json.loads((folder / "model.json").read_text())
    description["sha256"][name] = models.sha256_of(folder / name)
    (folder / "model.json").write_text(json.dumps(description))


def safetensors(header: dict[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE_WEIGHTS = {
    "a tensor of a terabyte": safetensors(
        {"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}
    ),
    "a header of an exabyte": struct.pack("<Q", 2**60) + b"{}",
    "offsets that go back": safetensors(
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}, bytes(16)
    ),
    "a shape that is not its size": safetensors(
        {"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 16]}}, bytes(16)
    ),
    "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
    "no bytes": b"",
}


@pytest.mark.parametrize("name", [models.WEIGHTS, models.MIXTURE, models.TISSUES])
@pytest.mark.parametrize("kind", HOSTILE_WEIGHTS)
def test_hostile_weights_are_refused_before_memory_is_taken(tmp_path: Path, kind: str, name: str) -> None:
    folder = write_small_network_model(tmp_path / "tiny", spacing=3.0)
    (folder / name).write_bytes(HOSTILE_WEIGHTS[kind])
    with_checksum(folder, name)
    with pytest.raises(MissingPartError, match="does not fit this version|damaged"):
        models.load(str(folder))


@pytest.mark.parametrize(
    "facts",
    [
        {"widths": [2**20] * 3},
        {"widths": [8] * 500},
        {"temperature": 0},
        {"temperature": 1e999},
        {"bias": [0]},
    ],
    ids=str,
)
def test_a_network_that_asks_for_too_much_or_tells_nothing_is_refused(
    tmp_path: Path, facts: dict[str, object]
) -> None:
    folder = write_small_network_model(tmp_path / "tiny", spacing=3.0)
    description = json.loads((folder / "model.json").read_text())
    description["tissue_network"] |= facts
    (folder / "model.json").write_text(json.dumps(description))
    with pytest.raises(MissingPartError, match="does not fit this version"):
        models.load(str(folder))


@pytest.mark.parametrize(
    "facts",
    [
        {"architecture": {"channels": [2**20] * 4, "hidden": 16}},
        {"architecture": {"channels": [8] * 500, "hidden": 16}},
        {"architecture": {"channels": [8, 8, 8, 8], "hidden": 2**31}},
        {"architecture": "import os"},
        {"spacing_mm": 0},
        {"spacing_mm": 1e-9},
        {"spacing_mm": float("nan")},
    ],
    ids=str,
)
def test_a_description_that_asks_for_too_much_is_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    folder = write_tiny(tmp_path / "tiny", **{k: v for k, v in facts.items() if v == v})
    if facts.get("spacing_mm") != facts.get("spacing_mm"):  # JSON has no name for NaN, Python's reader has
        text = (folder / "model.json").read_text()
        (folder / "model.json").write_text(re.sub(r'"spacing_mm": [\d.]+', '"spacing_mm": NaN', text))
    with pytest.raises(MissingPartError, match="does not fit this version"):
        models.load(str(folder))


def test_a_name_in_a_description_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = write_tiny(tmp_path / "outside")
    store = tmp_path / "store"
    write_tiny(store / "tiny", name="../outside")
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(store))
    removed = models.remove("../outside")
    assert removed == store / "tiny" and outside.is_dir()


# --- the patient -----------------------------------------------------------------------------------------

SECRETS = {
    "PatientName": "Zwiebelfisch^Quirin",
    "PatientID": "PID-770123",
    "PatientBirthDate": "19370402",
    "PatientAddress": "Lindwurmgasse 77",
    "PatientComments": "Neighbour of Wurzelsepp",
    "OtherPatientIDs": "OPID-5150",
    "AccessionNumber": "ACC90125",
    "StudyID": "STU-4242",
    "StudyDescription": "Thorax Zwiebelfisch",
    "SeriesDescription": "Serie fuer Quirin",
    "ProtocolName": "Protokoll Zwiebelfisch",
    "InstitutionName": "Spital Hinterwald",
    "ReferringPhysicianName": "Tannhuber^Resi",
    "OperatorsName": "Moosgruber^Sepp",
    "ImageComments": "for Zwiebelfisch",
}
TRACES = (
    *("zwiebelfisch", "quirin", "770123", "19370402", "lindwurm", "wurzelsepp"),
    *("5150", "acc90125", "4242", "hinterwald", "tannhuber", "moosgruber"),
)


def planted(folder: Path, **more: object) -> Path:
    hu = sitk.GetArrayFromImage(chest()).astype(np.float32)
    tags = {
        "step": (0, 0, SIDE),
        "PixelSpacing": [SIDE, SIDE],
        "SliceThickness": SIDE,
        "StudyDate": "19990909",
    }
    write_series(folder, hu, **(tags | SECRETS | more))  # type: ignore[arg-type]
    return folder


def texts_of(content: bytes) -> str:
    """The bytes as text, and what is packed in a PDF, a PNG or base64 in them.

    Base64 itself is left out: a few letters of a name stand in a megabyte of it by chance.
    """
    parts = [re.sub(rb";base64,[A-Za-z0-9+/=]+", b"", content)]
    parts += [base64.b64decode(packed) for packed in re.findall(rb";base64,([A-Za-z0-9+/=]+)", content)]
    for start in re.finditer(rb"stream\r?\n", content):
        try:
            parts.append(zlib.decompressobj().decompress(content[start.end() :]))
        except zlib.error:
            continue
    return b"\n".join(parts).decode("latin-1").lower()


@pytest.mark.slow
def test_nothing_tells_who_the_patient_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ct, out = planted(tmp_path / "Zwiebelfisch_Quirin"), tmp_path / "out"
    save(image_of(phantom().sides), tmp_path / "unused.nrrd")
    words = ["segment", str(ct), "-o", str(out / "r.seg.nrrd"), "--report", str(out / "report")]
    words += [
        "--measures",
        str(out / "m.csv"),
        "--overview",
        str(out / "o.png"),
        "--save-lungs",
        str(out / "l.nrrd"),
    ]
    words += [
        "--uncertainty",
        str(out / "u.nrrd"),
        "--quality",
        "fast",
        "--device",
        "cpu",
        "--progress",
        "json",
    ]
    assert cli.main(words) == 0
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) >= 9
    logged = capfd.readouterr()
    for trace in TRACES:
        assert trace not in (logged.out + logged.err).lower().replace(str(tmp_path).lower(), "")
        for path in files:
            assert trace not in str(path.relative_to(out)).lower()
            assert trace not in texts_of(path.read_bytes()), f"{trace} in {path.name}"


@pytest.mark.parametrize("number", ["../../etc", "Zwiebelfisch", "<b>4</b>", "4"])
def test_a_series_number_is_a_number(tmp_path: Path, number: str) -> None:
    folder = planted(tmp_path / "ct")
    for path in folder.iterdir():  # pydicom itself would refuse to write such a number
        content = path.read_bytes()
        place = content.index(b"\x20\x00\x11\x00IS")
        length = struct.unpack_from("<H", content, place + 6)[0]
        value = number.encode() + b" " * (len(number) % 2)
        rest = content[place + 8 + length :]
        path.write_bytes(content[: place + 6] + struct.pack("<H", len(value)) + value + rest)
    try:
        name = load_volume(folder).name
    except UnusableInputError:
        return
    assert re.fullmatch(r"CT series( -?\d+)?", name)


def test_outputs_stay_in_their_folder(tmp_path: Path) -> None:
    """The cohort names folders by what it finds in DICOM; none leads out."""
    from DiffSegLungLib.io.cases import find_cases

    planted(tmp_path / "in" / "a", StudyInstanceUID="1.2.3", PatientName="../../../evil")
    (tmp_path / "in" / "..hidden.nrrd").write_bytes(b"")
    save(chest(), tmp_path / "in" / ".. .. evil.nrrd")
    for case in find_cases(tmp_path / "in"):
        place = (tmp_path / "out" / case.name).resolve()
        assert place.parent == (tmp_path / "out").resolve() and case.name not in ("", ".", "..")


def test_no_module_talks_to_the_network_when_it_is_loaded() -> None:
    """Python tells of every socket; loading the whole library opens none."""
    import subprocess

    code = (
        "import sys, pkgutil, importlib\n"
        "sys.addaudithook(lambda event, args: event.startswith('socket.connect') and sys.exit(event))\n"
        "import DiffSegLungLib\n"
        "import DiffSegLungLib.export.dicom_seg, DiffSegLungLib.export.report\n"
        "for name in ('pipeline', 'models.storage', 'app.commands', 'quantify.remeasure'):\n"
        "    importlib.import_module('DiffSegLungLib.' + name)\n"
        "print('quiet')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "quiet", done.stderr


# --- known faults of packages ----------------------------------------------------------------------------


def report(*packages: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


SOUND = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("text", "status", "sentence"),
    [
        (report(SOUND, UNKNOWN), 0, "1 packages audited, 0 known faults, 1 unknown to the service: c"),
        (report(SOUND, FAULTY), 1, "b 2: PYSEC-1; mended in 2.1"),
        (report(UNKNOWN, UNKNOWN), 0, "NOT audited: none of 2 packages"),
        ("", 0, "NOT audited, the service could not be asked"),
    ],
)
def test_an_audit_that_could_ask_nobody_is_no_pass(text: str, status: int, sentence: str) -> None:
    found, lines = audit.verdict(text, "ConnectionError: no network")
    assert found == status and any(sentence in line for line in lines), lines
