"""A forked process is refused at once, one that is started anew is not; fork after use would hang."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, sys
{parent}
def job(_):
    from DiffSegLungLib import segment
    try:
        segment("no such file.nrrd", device="cpu")
    except Exception as error:
        return str(error)
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map_async(job, [0]).get(timeout=100))
"""
USED = "import torch; torch.randn(3_000_000).exp().sum()"
OURS = "import DiffSegLungLib.pipeline"
NOTHING = "from DiffSegLungLib import segment"
REFUSED = "This process was forked off one that had loaded torch"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start processes anew")
@pytest.mark.parametrize(
    ("parent", "method", "answer"),
    [
        (USED, "fork", REFUSED),
        (OURS, "fork", REFUSED),
        (NOTHING, "fork", "no such file"),
        (USED, "spawn", "no such file"),
    ],
    ids=["torch used", "our library loaded", "nothing loaded", "spawned"],
)
def test_a_forked_process_is_told(tmp_path: object, parent: str, method: str, answer: str) -> None:
    program = f"{tmp_path}/program.py"
    with open(program, "w", encoding="utf-8") as file:
        file.write(PROGRAM.format(parent=parent))
    command = [sys.executable, program, method]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "2", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert answer in done.stdout, done.stderr
