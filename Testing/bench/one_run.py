"""One cold run of ``diffseglung segment`` in a process of its own, metered: its figures as JSON.

python -m Testing.bench.one_run CT OUTPUT.seg.nrrd FIGURES.json [--quality fast] [--model NAME] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    from Testing.bench.meter import StageMeter

    meter = StageMeter()
    import torch

    torch.set_num_threads(arguments.threads)
    from DiffSegLungLib.commands import SegmentRequest, segment_to_files

    request = SegmentRequest(
        source=arguments.ct, output=arguments.output, quality=arguments.quality, model=arguments.model
    )
    segment_to_files(request, meter)
    meter.end()
    arguments.figures.write_text(json.dumps(meter.report(), indent=1))


if __name__ == "__main__":
    main()
