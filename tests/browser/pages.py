"""Addresses of every page, each checked in both themes."""

from tests.app.world import World


def addresses(world: World) -> dict[str, str]:
    """A page's name -> its address in a filled world."""
    _ = world
    return {
        "overview": "/overview",
    }


NAMES = ("overview",)
