"""Training runs with curves that look like a trainer's."""

import math
import random
from collections.abc import Collection

from paced import Client, wire
from tests.app.world import measure


def add_runs(
    client: Client, curriculum: wire.Curriculum, n_steps: int = 60, never: Collection[int] = ()
) -> list[wire.Run]:
    """Two seeds of one kind and one run of another, forward KL and then reverse KL; the first drew and wrote.

    Its checkpoint solves none of the problems `never`.
    """
    kinds = [("kl-seed1", 1.0, 1), ("kl-seed2", 1.0, 2), ("faster", 2.0, 1)]
    runs = [add_run(client, curriculum, name, rate, seed, n_steps) for name, rate, seed in kinds]
    first = runs[0].run_id
    for _ in range(3):
        client.acknowledge(client.draw_batch(curriculum.curriculum_id, 16, run_id=first).batch_id)
    written = wire.CheckpointCreate(uri="/models/written", run_id=first, step=n_steps)
    client.register_checkpoint(curriculum.student, written)
    measure(client, curriculum.student, lambda i: 0 if i in never else 3 + i % 6, size=64)
    return runs


def add_run(client: Client, curriculum: wire.Curriculum, name: str, rate: float, seed: int, n_steps: int) -> wire.Run:
    config = {"learning_rate": 1e-5 * rate, "batch_size": 16, "seed": seed, "student": "tiny", "teacher": "self"}
    body = wire.RunCreate(curriculum_id=curriculum.curriculum_id, name=name, config=config)
    run, rng = client.create_run(body), random.Random(f"{name}{seed}")
    client.append_metrics(run.run_id, [_point(step, n_steps, rate, rng) for step in range(n_steps)])
    return client.run(run.run_id)


def _point(step: int, n_steps: int, rate: float, rng: random.Random) -> wire.MetricPoint:
    is_forward = step < n_steps // 2
    place = step if is_forward else step - n_steps // 2
    top, floor = (0.9, 0.25) if is_forward else (0.5, 0.12)
    kl = floor + (top - floor) * math.exp(-rate * place / 12) * rng.uniform(0.85, 1.15)
    spike = 6.0 if step == n_steps // 3 else 1.0
    values = {
        "loss": 0.8 * kl,
        "kl_per_token": kl,
        "grad_norm": spike * rng.uniform(0.6, 1.4),
        "n_tokens": float(rng.randint(1800, 2200)),
        "duration_s": rng.uniform(3.5, 4.5),
        "frontier_share": rng.uniform(0.8, 1.0),
    }
    stage = wire.Stage.FORWARD_KL if is_forward else wire.Stage.REVERSE_KL
    return wire.MetricPoint(step=step, stage=stage, values=values)
