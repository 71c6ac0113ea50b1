"""A small world with something on every page."""

import random
from pathlib import Path

from paced import Client, wire
from tests.app.world import World, build, measure, misjudge
from tests.browser.training import add_runs
from tests.service import Service, TestClock

N_CHECKPOINTS = 3


def fill(service: Service, client: Client, folder: Path, n_problems: int = 120, suffix: str = "-seen") -> World:
    """A student that learns over three checkpoints, with batches at each."""
    curriculum = build(client, folder, n_problems, suffix=suffix, holdout_share=0.2)
    never = set(misjudge(client, curriculum.student, 12))
    rng = random.Random(1)
    for checkpoint in range(N_CHECKPOINTS):
        if checkpoint:
            client.register_checkpoint(curriculum.student, wire.CheckpointCreate(uri=f"/models/{checkpoint}"))
        ability = 0.6 + 0.5 * checkpoint

        def passed(problem_id: int, ability: float = ability) -> int:
            return 0 if problem_id in never else round(8 * rng.betavariate(ability, 1.2))

        measure(client, curriculum.student, passed, size=64)
        for _ in range(3):
            batch = client.draw_batch(curriculum.curriculum_id, 16)
            client.acknowledge(batch.batch_id)
    add_runs(client, curriculum, never=never)
    return World(service, client, TestClock(), curriculum)
