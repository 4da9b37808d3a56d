"""Writes DiffSegLung.s4ext from DiffSegLung.json and CMakeLists.txt; run from anywhere:

python Testing/packaging/write_s4ext.py

What the catalogue entry says is taken from it; pictures and description stand in CMakeLists.txt alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = ROOT / "DiffSegLung.s4ext"
TEMPLATE = """\
# Written by Testing/packaging/write_s4ext.py from DiffSegLung.json and CMakeLists.txt: change those.
# First word of a line: the key; the rest: its value.

# Source code
scm {scm}
scmurl {scmurl}
scmrevision {scmrevision}

# Extensions that must be there first
depends {depends}
recommends

build_subdirectory {build_subdirectory}
homepage {HOMEPAGE}
contributors {CONTRIBUTORS}
category {category}

# PNG, 128 x 128
iconurl {ICONURL}

status {STATUS}
tier {tier}
description {DESCRIPTION}
screenshoturls {SCREENSHOTURLS}

# 1: switched on once installed
enabled {enabled}
dicom_support_rule {dicom_support_rule}
keywords {KEYWORDS}
"""


def description(entry: dict[str, Any], lists: str) -> str:
    """The s4ext.

    Args:
        entry: of the catalogue, as DiffSegLung.json has it.
        lists: the text of CMakeLists.txt.
    """
    fields = dict(re.findall(r'^set\(EXTENSION_(\w+) "([^"]*)"\)$', lists, re.MULTILINE))
    fields |= {
        "scm": entry.get("scm_type", "git"),
        "scmurl": entry["scm_url"],
        "scmrevision": entry["scm_revision"],
        "depends": " ".join(entry["build_dependencies"]) or "NA",
        "build_subdirectory": entry["build_subdirectory"],
        "category": entry["category"],
        "tier": str(entry["tier"]),
        "enabled": str(int(entry.get("enabled", True))),
        "dicom_support_rule": entry.get("dicom_support_rule", ""),
    }
    lines = TEMPLATE.format(**fields).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def written() -> str:
    """What the file has to hold now."""
    entry = json.loads((ROOT / "DiffSegLung.json").read_text(encoding="utf-8"))
    return description(entry, (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    DESCRIPTION.write_text(written(), encoding="utf-8", newline="\n")
