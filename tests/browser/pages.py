"""Addresses of every page, each checked in both themes."""

from tests.app.world import World


def addresses(world: World) -> dict[str, str]:
    """A page's name -> its address in a filled world."""
    chosen, run_ids = f"curriculum={world.curriculum.curriculum_id}", [run.run_id for run in world.client.runs()]
    newest = list(world.client.batches(world.curriculum.curriculum_id))[-1]
    return {
        "sign in": "/sign-in",
        "overview": f"/overview?{chosen}",
        "problems": f"/problems?{chosen}&q=tag:sum+p<0.9+sort:-weight",
        "bad query": f"/problems?{chosen}&q=p<<3",
        "no match": f"/problems?{chosen}&q=tag:nothing",
        "problem": f"/problems/{world.curriculum.problem_set}/17?{chosen}&groups=9",
        "disputes": f"/disputes?{chosen}",
        "workers": f"/workers?{chosen}",
        "curriculum": f"/curricula?{chosen}&gamma=5&shares=sum+20%25",
        "batches": f"/batches?{chosen}",
        "batch": f"/batches/{newest.batch_id}",
        "runs": f"/runs?{chosen}",
        "run": f"/runs/{run_ids[0]}",
        "comparison": f"/runs/compare?{chosen}&" + "&".join(f"run_id={run_id}" for run_id in run_ids),
        "not found": "/batches/bat_nope",
    }


NAMES = (
    "sign in",
    "overview",
    "problems",
    "bad query",
    "no match",
    "problem",
    "disputes",
    "workers",
    "curriculum",
    "batches",
    "batch",
    "runs",
    "run",
    "comparison",
    "not found",
)
