"""``python -m DiffSegLungLib.evaluation.painted``: paint the kinds and write down what they are.

The file that comes of it freezes the painter: whoever changes what a kind looks like changes its hash.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from DiffSegLungLib.evaluation.command import default_data
from DiffSegLungLib.evaluation.painted import KINDS, VERSION, PaintedCase, make_painted, truth_sha256

EMPTY_HU = -750.0
"""Real marks are measured by the share below this."""


def describe(case: PaintedCase) -> dict[str, Any]:
    """What a case holds: ml of the painted tissue (of the lungs, where nothing is diseased) and its HU."""
    painted = case.lungs if case.kind.negative else case.truth == case.kind.tissue
    values = case.volume.hu[painted & case.scored]
    return {
        "host": case.kind.host,
        "seed": case.kind.seed,
        "truth_ml": round(float(painted.sum() * case.volume.voxel_ml), 1),
        "mean_hu": round(float(values.mean()), 1),
        "sd_hu": round(float(values.std()), 1),
        "percent_below_-750": round(float(100.0 * (values < EMPTY_HU).mean()), 1),
        "sha256": truth_sha256(case),
    }


def main() -> int:
    """Paint, print a row of each kind, and write the table; kinds that are not asked for keep their rows."""
    parser = argparse.ArgumentParser(prog="python -m DiffSegLungLib.evaluation.painted", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="paint these (default: every kind)")
    data_help = "the real CT (default: DIFFSEGLUNG_DATA, else ../shared/data)"
    parser.add_argument("--data", metavar="FOLDER", type=Path, default=default_data(), help=data_help)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("Testing/evaluation/painted.json")
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.kinds if name not in KINDS]
    if unknown:
        parser.error(f"no kind {unknown[0]!r}; choose from {', '.join(KINDS)}")
    rows = _known_rows(arguments.output)
    for name in sorted(arguments.kinds or KINDS, key=lambda name: KINDS[name].host):  # each host once
        rows[name] = describe(make_painted(name, arguments.data))
        print(name, *(f"{key} {value}" for key, value in rows[name].items()), sep="  ", flush=True)
        ordered = {name: rows[name] for name in KINDS if name in rows}
        arguments.output.write_text(
            json.dumps({"version": VERSION, "kinds": ordered}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


def _known_rows(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    table = json.loads(path.read_text(encoding="utf-8"))
    return dict(table["kinds"]) if table["version"] == VERSION else {}


if __name__ == "__main__":
    raise SystemExit(main())
