"""The example that trains with the classes spread over ranks, on a small scale."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_sharded.py"


@pytest.mark.slow
def test_two_ranks_learn_and_read_their_checkpoint_back(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(EXAMPLE)]
    options = ["--classes", "2000", "--features", "32", "--steps", "20", "--checkpoint", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    recalls = [float(found) for found in re.findall(r"^step .*recall@1 +([\d.]+)%", run.stdout, re.MULTILINE)]
    assert len(recalls) == 11
    assert recalls[-1] > 2 * recalls[0]
    read = re.search(r"^recall@1 ([\d.]+)%, after reading it back ([\d.]+)%", run.stdout, re.MULTILINE)
    assert read is not None
    assert read[1] == read[2] == f"{recalls[-1]}"
    peaks = re.findall(r"^  rank \d +(\d+) +(\d+)$", run.stdout, re.MULTILINE)
    assert len(peaks) == 2
    assert all(int(peak) >= int(before) > 0 for peak, before in peaks)
    assert {file.suffix for file in tmp_path.iterdir()} == {".safetensors"}
