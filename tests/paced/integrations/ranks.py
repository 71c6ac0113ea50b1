"""One rank of a GRPO run, started by torchrun: `... tests.paced.integrations.ranks URL MODEL FOLDER N_STEPS`.

Every rank writes what it was asked and how it judged to FOLDER/RANK.json, a list of calls of the reward function.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

from paced import Client
from paced.integrations.trl import Curriculum, Weighted
from tests.service import ADMIN_KEY

SIZE, N_GENERATIONS, N_MICRO_STEPS, N_RANKS = 4, 4, 2, 2


def main(url: str, model: str, folder: str, n_steps: str) -> None:
    from trl import GRPOConfig, GRPOTrainer  # warns, which a test that imports this module may not

    class Trainer(Weighted, GRPOTrainer):  # type: ignore[misc]
        pass

    asked: list[list[tuple[int, float]]] = []

    def is_right(completions: list[Any], problem_id: list[int], **_: Any) -> list[float]:
        found = [float(crc32(completion[0]["content"].encode()) % 2) for completion in completions]
        asked.append(list(zip(problem_id, found, strict=True)))
        return found

    with Client(url, ADMIN_KEY) as client:
        curriculum = Curriculum(client, "main", "ranks")
        settings = GRPOConfig(
            output_dir=f"{folder}/out",
            per_device_train_batch_size=SIZE * N_GENERATIONS // N_MICRO_STEPS // N_RANKS,
            gradient_accumulation_steps=N_MICRO_STEPS,
            num_generations=N_GENERATIONS,
            max_completion_length=6,
            max_steps=int(n_steps),
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            logging_strategy="no",
            disable_tqdm=True,
            bf16=False,
            ddp_backend="gloo",
        )
        Trainer(model=model, reward_funcs=curriculum.observed(is_right), args=settings, curriculum=curriculum).train()
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(asked))


if __name__ == "__main__":
    main(*sys.argv[1:])
