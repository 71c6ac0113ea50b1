"""One rank of TRL's runs, started by torchrun: `... tests.paced.integrations.ranks URL MODEL FOLDER`.

Every rank writes to FOLDER/RANK.pt. `grpo`: what each call of the reward function was asked, and how it judged.
`distil`, a single step of plain SGD: the step's micro-batches, and the weights after it.
"""

import os
import sys
from typing import Any
from zlib import crc32

import torch

from paced import Client
from paced.integrations.trl import Curriculum, Weighted
from tests.service import ADMIN_KEY

# TRL warns when it is imported, which a test that imports this module may not: each kind imports it when it runs.
N_RANKS, N_MICRO_STEPS, SIZE, N_GENERATIONS, N_STEPS = 2, 2, 4, 4, 3
COMMON = {
    "gradient_accumulation_steps": N_MICRO_STEPS,
    "max_completion_length": 6,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "logging_strategy": "no",
    "disable_tqdm": True,
    "bf16": False,
    "ddp_backend": "gloo",
}


def grpo(curriculum: Curriculum, model: str, folder: str) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(Weighted, GRPOTrainer):  # type: ignore[misc]
        pass

    asked: list[list[tuple[int, float]]] = []

    def is_right(completions: list[Any], problem_id: list[int], **_: Any) -> list[float]:
        found = [float(crc32(completion[0]["content"].encode()) % 2) for completion in completions]
        asked.append(list(zip(problem_id, found, strict=True)))
        return found

    size = SIZE * N_GENERATIONS // N_MICRO_STEPS // N_RANKS
    own = {"per_device_train_batch_size": size, "num_generations": N_GENERATIONS, "max_steps": N_STEPS}
    args = GRPOConfig(output_dir=f"{folder}/out", **COMMON, **own)
    Trainer(model=model, reward_funcs=curriculum.observed(is_right), args=args, curriculum=curriculum).train()
    return asked


def distil(curriculum: Curriculum, model: str, folder: str) -> Any:
    from trl import DistillationConfig, DistillationTrainer

    from paced.integrations.trl_distillation import WeightedDistillation

    seen: list[dict[str, Any]] = []

    class Watched(DistillationTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any) -> Any:
            loss = super().training_step(*args)
            seen.append(self._buffered_inputs[(self._step - 1) % N_MICRO_STEPS])
            return loss

    class Trainer(WeightedDistillation, Watched):
        pass

    sgd = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    own = {"per_device_train_batch_size": SIZE // N_MICRO_STEPS, "max_steps": 1, **sgd}
    args = DistillationConfig(output_dir=f"{folder}/out", **COMMON, **own)
    trainer = Trainer(model=model, teacher_model=f"{folder}/teacher", args=args, curriculum=curriculum)
    trainer.train()
    after = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    return {"seen": seen, "after": after, "temperature": trainer.temperature}


def main(url: str, model: str, folder: str) -> None:
    with Client(url, ADMIN_KEY) as client:
        runs = {"grpo": grpo, "distil": distil}
        told = {name: run(Curriculum(client, f"main-{name}", "ranks"), model, folder) for name, run in runs.items()}
    torch.save(told, f"{folder}/{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
