"""What a change of a curriculum's rule is, and what it does, in words. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from paced.wire import CurriculumPreview

NAMES = {
    "kernel.alpha": "α",
    "kernel.beta": "β",
    "gamma": "γ",
    "filters.band": "band",
    "filters.min_groups": "least measurements",
    "filters.cooldown_batches": "cool-down",
    "filters.tags": "tags",
    "filters.sources": "sources",
    "estimator.name": "estimator",
    "retest_share": "share for settled problems",
    "loss_weight_clip": "clip of loss weights",
    "batch_ttl_s": "life of a batch in seconds",
    "strata": "shares by tag",
}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Each field that two rules differ in, such as `γ 2 → 4`."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return [
        f"{NAMES.get(name, name)} {shown(old.get(name))} → {shown(new.get(name))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _flat(rule: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in rule.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield within + name, value


def shown(value: Any) -> str:
    """A setting for reading."""
    if value is None or value == []:
        return "none"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        if all(isinstance(item, Mapping) for item in value):
            return ", ".join(" ".join(shown(part) for part in item.values()) for item in value)
        return "–".join(shown(item) for item in value) if len(value) == 2 else ", ".join(map(shown, value))
    return str(value)


def effects(preview: CurriculumPreview) -> list[str]:
    """What the change does to the draw, the largest effect first; empty where nothing moves."""
    now, then, moved = preview.present, preview.changed, preview.moved_share
    if then.n_drawable == 0:
        return ["Nothing could be drawn any more."]
    if moved is None:
        return [f"{then.n_drawable:,} problems could be drawn, where now none can."]
    if moved < 0.0005:
        loss = sum(abs(a - b) for a, b in zip(now.loss_shares, then.loss_shares, strict=True)) / 2
        return [] if loss < 0.0005 else [f"The draw stays; {loss:.0%} of the weight in the loss moves."]
    found = [f"{moved:.0%} of the draw goes to other problems."]
    found += _moved("The share on the frontier (0.1 < p < 0.9)", now.frontier_share, then.frontier_share, "{:.0%}")
    found += _moved("The mean pass rate of what is drawn", now.mean_pass_rate, then.mean_pass_rate, "{:.2f}")
    spread = (now.effective_problems, then.effective_problems)
    found += _moved("The number of problems that it is effectively spread over", *spread, "{:,.0f}")
    found += _moved("The number of problems with a chance", now.n_drawable, then.n_drawable, "{:,.0f}")
    return found


def _moved(what: str, before: float | None, after: float | None, form: str) -> Iterator[str]:
    if before is None or after is None:
        return
    old, new = form.format(before), form.format(after)
    if old != new:
        yield f"{what} {'rises' if after > before else 'falls'} from {old} to {new}."
