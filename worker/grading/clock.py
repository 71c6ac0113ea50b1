"""Times of day: `8:34 p.m.` is 20:34. A colon without a.m. or p.m. on either side may be a ratio, and is left alone."""

import re

TIME = re.compile(
    r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-5][0-9])\s*(?:\\(?:text|mathrm|textrm)\s*\{)?\s*(?:(?P<half>[ap])\.?\s?m\.?)?\s*\}?",
    re.IGNORECASE,
)


def is_same(a: str, b: str) -> bool | None:
    """Compare two times of day, or return None where one is none, or neither names its half of the day."""
    left, right = TIME.fullmatch(_plain(a)), TIME.fullmatch(_plain(b))
    if left is None or right is None:
        time, other = left or right, b if left else a
        return False if time and time["half"] and ":" in other else None
    if not (left["half"] or right["half"]):
        return None
    times = _times(left), _times(right)
    return bool(times[0] & times[1])


def _plain(text: str) -> str:
    return re.sub(r"\\[,;: ]|[~$]", " ", text).strip()


def _times(match: re.Match[str]) -> set[int]:
    """Return the minutes after midnight that are meant: two where 8:34 does not say which half."""
    hour, minute = int(match["hour"]), int(match["minute"])
    if match["half"]:
        hour = hour % 12 + 12 * (match["half"].lower() == "p")
        return {60 * hour + minute}
    return {60 * hour + minute, 60 * (hour + 12) + minute} if 1 <= hour < 12 else {60 * hour + minute}
