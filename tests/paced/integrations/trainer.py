"""One rank of a training job, to be killed at any moment.

`python -m tests.paced.integrations.trainer URL RUN RANK N_RANKS FILE`.

Its checkpoint FILE holds what the weights would: every draw they were trained on, and the stream's state, written at
once. Each step takes as long as a short optimiser step.
"""

import json
import os
import sys
import time
from pathlib import Path

from torch.utils.data import DataLoader

from paced import Client
from paced.integrations.pytorch import BatchStream
from tests.service import ADMIN_KEY

STEP_S = 0.05
N_WORKERS = 4


def main(url: str, run: str, rank: str, n_ranks: str, file: str) -> None:
    checkpoint = Path(file)
    saved = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"trained": [], "stream": None}
    with Client(url, ADMIN_KEY) as client:
        stream = BatchStream(client, "main", run, 8, rank=int(rank), n_ranks=int(n_ranks), n_ahead=1)
        if saved["stream"] is not None:
            stream.load_state_dict(saved["stream"])
        for draw in DataLoader(stream, batch_size=None, num_workers=N_WORKERS):
            time.sleep(STEP_S)
            saved["trained"].append([draw.position, draw.batch.batch_id, draw.batch.problem_id])
            stream.acknowledge(draw)
            saved["stream"] = stream.state_dict()
            draft = checkpoint.with_suffix(".draft")
            draft.write_text(json.dumps(saved))
            os.replace(draft, checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
