"""One cold run of ``diffseglung segment`` in a process of its own, metered: its figures as JSON.

python -m Testing.bench.one_run CT OUTPUT.seg.nrrd FIGURES.json [--quality fast] [--threads 1] [--count]
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from Testing.bench.meter import StageMeter

GRID_MM = 1.5


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", action="store_true", help="count torch's operations, a little slower")
    arguments = parser.parse_args()
    meter = StageMeter()
    import torch

    torch.set_num_threads(arguments.threads)
    from DiffSegLungLib.app.commands import SegmentRequest, segment_to_files

    request = SegmentRequest(
        source=arguments.ct, output=arguments.output, quality=arguments.quality, model=arguments.model
    )
    with counter(meter) if arguments.count else nullcontext():
        result = segment_to_files(request, meter)
    meter.end()
    figures = meter.report() | {"facts": facts(result)}
    arguments.figures.write_text(json.dumps(figures))


def counter(meter: StageMeter) -> Any:
    """Counts floating-point operations of torch, stage by stage; NumPy's matrix products stay uncounted."""
    from torch.utils.flop_counter import FlopCounterMode

    counting = FlopCounterMode(display=False)
    meter.flops = counting.get_total_flops
    return counting


def facts(result: Any) -> dict[str, Any]:
    """What was worked on, and the bytes that each stage moves at the least."""
    from DiffSegLungLib.quantify.measures import lung_box

    labels, volume = result.label_array, result.volume
    ct, lung = labels.size, int((labels > 0).sum())
    box = labels[lung_box(labels)].size
    lung_mm3 = lung * volume.voxel_ml * 1000.0
    grid = box * volume.voxel_ml * 1000.0 / GRID_MM**3
    voxels = lung_mm3 / GRID_MM**3
    moved = {
        "read": 2 * ct + 4 * ct,
        "lungs": 4 * ct + 2 * ct,
        "grid": 4 * box + (4 + 1 + 1 + 4 + 4 + 1) * grid,
        "features": (4 + 4 * 4) * grid,
        "mixture": 4 * 12 * voxels + 4 * 5 * voxels,
        "fusion": 2 * 4 * 5 * voxels + 4 * 4 * grid,
        "labels": 4 * 7 * grid + box,
        "measures": 5 * box,
        "writing": 2 * ct,
    }
    return {
        "size": list(labels.shape),
        "spacing_mm": list(volume.spacing),
        "lung_ml": round(lung_mm3 / 1000.0),
        "bytes": {name: int(count) for name, count in moved.items()},
    }


if __name__ == "__main__":
    main()
