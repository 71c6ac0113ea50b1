"""Addresses of every page, each checked in both themes."""

from tests.app.world import World


def addresses(world: World) -> dict[str, str]:
    """A page's name -> its address in a filled world."""
    chosen = f"curriculum={world.curriculum.curriculum_id}"
    return {
        "overview": "/overview",
        "problems": f"/problems?{chosen}&q=tag:sum+p<0.9+sort:-weight",
        "bad query": f"/problems?{chosen}&q=p<<3",
        "no match": f"/problems?{chosen}&q=tag:nothing",
        "problem": f"/problems/{world.curriculum.problem_set}/17?{chosen}&groups=9",
    }


NAMES = ("overview", "problems", "bad query", "no match", "problem")
