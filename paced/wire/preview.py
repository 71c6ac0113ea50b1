"""Stage 6: what a change of a curriculum would do to its draws, before it is made."""

from typing import Any

from .base import Resource, example

_SIDE: dict[str, Any] = {
    "n_admitted": 300,
    "n_drawable": 290,
    "effective_problems": 171.5,
    "frontier_share": 0.82,
    "mean_pass_rate": 0.46,
    "draw_shares": [0.3, 0.7],
    "loss_shares": [0.4, 0.6],
    "tags": [{"tag": "algebra", "share": 0.6, "n_problems": 120}, {"tag": "geometry", "share": 0.4, "n_problems": 180}],
    "warnings": [],
}


class TagShare(Resource):
    """How much of the draw goes to the problems whose first tag this is; "" has none."""

    tag: str
    share: float
    n_problems: int


class PreviewSide(Resource):
    """Draws of one rule from the present estimates.

    Shares add up to 1: `draw_shares` by bin of the estimated pass rate are chances of the first draw, `loss_shares`
    what is left of them after the loss weight. `effective_problems` is 1/Σchance², `frontier_share` the chance that
    0.1 < p < 0.9, `mean_pass_rate` the mean of p over draws; null where nothing can be drawn. `n_admitted` counts
    problems inside the filters, `n_drawable` those of them with a chance. `tags` holds the 20 largest.
    """

    n_admitted: int
    n_drawable: int
    effective_problems: float | None
    frontier_share: float | None
    mean_pass_rate: float | None
    draw_shares: list[float]
    loss_shares: list[float]
    tags: list[TagShare]
    warnings: list[str]


class CurriculumPreview(Resource):
    """The curriculum's rule as it is and as changed, on the same estimates; nothing is stored.

    `edges` bound the bins, `problem_shares` is where the training problems lie under the changed rule's estimator:
    what a uniform draw from the measured ones would give. `batch_size` is that of the curriculum's largest batch so
    far, null without one; `moved_share` the part of the draw that goes to other problems (total variation).
    """

    model_config = example(
        curriculum_id="cur_3hGw",
        version=1,
        edges=[0.0, 0.5, 1.0],
        problem_shares=[0.5, 0.5],
        n_trained=378,
        n_measured=300,
        batch_size=16,
        moved_share=0.12,
        present=_SIDE,
        changed=_SIDE,
    )

    curriculum_id: str
    version: int
    edges: list[float]
    problem_shares: list[float]
    n_trained: int
    n_measured: int
    batch_size: int | None
    moved_share: float | None
    present: PreviewSide
    changed: PreviewSide
