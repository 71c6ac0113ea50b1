"""The part of a curriculum's rule that has sliders, as a form holds it."""

import re
from typing import Any, Self

from pydantic import BaseModel

from app.errors import Invalid
from app.flow.estimates.terms import written
from paced.wire import Curriculum, CurriculumUpdate

EVERYTHING = (0.0, 1.0)  # ends of the band that stand for no band
_PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')  # a tag that holds a comma stands in quotes
_NUMBER = r"(?P<share>(?:\d+(?:\.\d+)?|\.\d+)(?:e-?\d+)?)(?P<percent>\s*%)?"
_SHARE = re.compile(rf'(?:"(?P<quoted>(?:[^"\\]|\\.)+)"|(?P<tag>[^"]+?))[\s:=]+{_NUMBER}')


class Sliders(BaseModel):
    """What is left out stays as it is; `shares` reads `algebra 20%, geometry 0.1`, and an empty text leaves none."""

    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    band_low: float | None = None
    band_high: float | None = None
    min_groups: int | None = None
    retest_share: float | None = None
    shares: str | None = None
    version: int | None = None

    @classmethod
    def of(cls, curriculum: Curriculum) -> Self:
        """Where they stand under a curriculum's rule."""
        low, high = curriculum.filters.band or EVERYTHING
        return cls(
            alpha=curriculum.kernel.alpha,
            beta=curriculum.kernel.beta,
            gamma=curriculum.gamma,
            band_low=low,
            band_high=high,
            min_groups=curriculum.filters.min_groups,
            retest_share=curriculum.retest_share,
            shares=", ".join(f"{written(stratum.tag)} {share_of(stratum.share)}" for stratum in curriculum.strata),
            version=curriculum.version,
        )

    def over(self, present: Curriculum) -> Self:
        """All of them, those left out as they are now."""
        return type(self).of(present).model_copy(update=self.model_dump(exclude_none=True))

    def update(self, present: Curriculum) -> CurriculumUpdate:
        """The change that they stand for; raises ValidationError, and Invalid for shares that cannot be read."""
        s = self.over(present)
        band = (s.band_low, s.band_high)
        filters = {**present.filters.model_dump(), "band": None if band == EVERYTHING else band}
        return CurriculumUpdate.model_validate(
            {
                "kernel": {"alpha": s.alpha, "beta": s.beta},
                "gamma": s.gamma,
                "filters": {**filters, "min_groups": s.min_groups},
                "retest_share": s.retest_share,
                "strata": strata_of(s.shares or ""),
            }
        )


def strata_of(text: str) -> list[dict[str, Any]]:
    """Shares by tag; raises Invalid with the part that is none."""
    found = []
    for part in filter(None, (part.strip() for part in _PART.findall(text))):
        read = _SHARE.fullmatch(part)
        if read is None:
            raise Invalid(
                f"{part!r} is no tag with a share; write them as `algebra 20%, geometry 0.1`", code="bad_share"
            )
        share = float(read["share"]) / (100.0 if read["percent"] else 1.0)
        tag = re.sub(r"\\(.)", r"\1", read["quoted"]) if read["quoted"] else read["tag"]
        found.append({"tag": tag, "share": share})
    return found


def share_of(share: float) -> str:
    """In percent where that is read back as the same number."""
    percent = f"{100 * share:.12g}"
    return f"{percent}%" if float(percent) / 100 == share else repr(share)
