"""What the Extensions Index and a careful reader look for in the repository as a whole."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "DiffSegLung/Resources/requirements.txt"
PICTURES = {".png", ".gif", ".jpg", ".pdf", ".mp4", ".webm"}
BINARY = PICTURES | {".nrrd", ".safetensors", ".npz", ".gz", ".xz", ".dcm"}
LARGEST_TOTAL_BYTES = 100_000_000
MOST_README_WORDS = 1800


def repository_files() -> list[Path]:
    """The files that a clone would have, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_text_files_have_plain_line_ends() -> None:
    texts = [path for path in repository_files() if path.suffix.lower() not in BINARY]
    assert len(texts) > 50
    assert not [path.name for path in texts if b"\r" in path.read_bytes()]


def test_clone_is_small_enough_for_the_index() -> None:
    assert sum(path.stat().st_size for path in repository_files()) < LARGEST_TOTAL_BYTES


def test_licence_is_at_the_root_and_in_the_readme() -> None:
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "Version 2.0" in licence
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_has_what_reviewers_look_for() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures if "://" not in picture)
    assert "research only" in readme.lower()
    assert "3D Slicer" in readme
    assert re.search(r"^## Cite$", readme, re.MULTILINE)
    assert re.search(r"^## Licence$", readme, re.MULTILINE)


def test_readme_is_short() -> None:
    """A newcomer reads it in ten minutes; what is longer has a page beside what it is about."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_README_WORDS


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """Links and pictures of a page that lead to no file or heading of the repository."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in headings(target))):
            dead.append(f"{page.relative_to(ROOT)}: {link}")
    return dead


def test_every_page_links_to_what_is_there() -> None:
    pages = [path for path in repository_files() if path.suffix == ".md"]
    assert ROOT / "DiffSegLungLib/README.md" in pages
    assert [link for page in pages for link in dead_links(page)] == []


def requirements() -> list[Requirement]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def test_requirements_can_be_read_by_slicer() -> None:
    """Slicer reads a line a requirement; no options, no pins: a pin would replace what others need."""
    names = [requirement.name.lower() for requirement in requirements()]
    assert len(names) == len(set(names))
    assert {"torch", "numpy", "simpleitk"} <= set(names)
    for requirement in requirements():
        assert requirement.url is None
        signs = {specifier.operator for specifier in requirement.specifier}
        assert signs == {">=", "<"}, f"{requirement}: a floor and a ceiling, no pin"


def test_no_requirement_replaces_what_slicer_owns() -> None:
    names = {requirement.name.lower() for requirement in requirements()}
    assert not names & {"vtk", "slicer-core", "itk", "pyside6", "pyradiomics"}
