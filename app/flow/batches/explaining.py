"""The terms behind each item of a stored batch. Pure."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.flow.batches.body import as_sent, unpacked
from app.flow.curricula.rule import Rule
from app.flow.curricula.weighting import peak, power
from app.flow.estimates.estimators import is_inside, make_estimator


def terms(row: dict[str, Any], rule: Rule) -> Iterator[dict[str, Any]]:
    """Fields of each item, in draw order, from a batch's row and the rule of its version."""
    estimator = make_estimator(rule.estimator)
    first, second = unpacked(row, "posteriors").reshape(-1, 2).astype(np.float64).T
    low, high = estimator.interval(first, second)
    sent = as_sent(row)
    relative = power(rule, np.array(sent["weight"]), peak(rule.kernel))
    inside = is_inside(np.array(sent["pass_rate"]))
    n, n_inside = row["n_eligible"], row["n_hard_filter"]
    for i, ordinal in enumerate(unpacked(row, "ordinals").tolist()):
        yield {
            **{name: values[i] for name, values in sent.items()},
            "ordinal": ordinal,
            "interval": (float(low[i]), float(high[i])),
            "posterior": dict(zip(estimator.names, (float(first[i]), float(second[i])), strict=True)),
            "relative_weight": float(relative[i]),
            "uniform_probability": 1.0 / n,
            "uniform_inclusion": min(1.0, row["size"] / n),
            "hard_filter_probability": 1.0 / n_inside if inside[i] else 0.0,
            "hard_filter_inclusion": min(1.0, row["size"] / n_inside) if inside[i] else 0.0,
        }
