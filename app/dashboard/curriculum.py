"""The rule of a curriculum under sliders: what a change would do to the draws, then the change itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from app.dashboard.choice import Choice, Chosen
from app.dashboard.distributions import Bin, bins_of, figures_of
from app.dashboard.figures import Figure
from app.dashboard.forms import back, posted
from app.dashboard.sliders import Sliders
from app.dashboard.twins import page
from app.dashboard.words import differences, effects
from app.errors import Conflict, Invalid
from app.flow.curricula.rule import Rule
from app.flow.curricula.store import Version
from paced.wire import Curriculum, CurriculumPreview, Scope

router = APIRouter(include_in_schema=False)
PATH = "/curricula"


@dataclass(frozen=True, slots=True)
class Change:
    """A version with what it changed, and the sliders as it left them."""

    version: Version
    differences: list[str]
    query: str


@dataclass(frozen=True, slots=True)
class CurriculumPage:
    """The present rule, where the sliders stand, and what that would do; `fault` says why it cannot be."""

    choice: Choice
    curriculum: Curriculum | None = None
    sliders: Sliders | None = None
    preview: CurriculumPreview | None = None
    differences: Sequence[str] = ()
    effects: Sequence[str] = ()
    fault: str | None = None
    versions: Sequence[Change] = ()
    rows: Sequence[Bin] = ()


def figures(found: CurriculumPage) -> dict[str, Figure]:
    """The page's figures."""
    return {} if found.preview is None else figures_of(found.preview, is_changed=bool(found.differences))


@page(router, PATH, "curriculum.html", rows=Bin, figures=figures, live=("observations", "curricula", "checkpoints"))
async def curriculum(request: Request, choice: Chosen) -> CurriculumPage:
    """The page of one curriculum; what its address holds of sliders is previewed."""
    present = choice.curriculum
    if present is None:
        return CurriculumPage(choice)
    state: Any = request.app.state
    versions = _changes(await state.curricula.versions(present.curriculum_id), present)
    asked = request.query_params.items()
    given = {name: text for name, text in asked if name in Sliders.model_fields and (text or name == "shares")}
    sliders = Sliders.of(present)
    try:
        sliders = Sliders.model_validate(given).over(present)
        update = sliders.update(present)
        preview = await state.previews.preview(present.curriculum_id, update)
        after = _rule(present).changed(update)
    except (ValidationError, Invalid) as error:
        return CurriculumPage(choice, present, sliders, fault=_said(error), versions=versions)
    changed = differences(_rule(present).model_dump(), after.model_dump())
    return CurriculumPage(
        choice=choice,
        curriculum=present,
        sliders=sliders,
        preview=preview,
        differences=changed,
        effects=effects(preview) if changed else [],
        versions=versions,
        rows=bins_of(preview),
    )


@router.post(f"{PATH}/{{curriculum_id}}")
async def apply(
    request: Request, curriculum_id: str, sliders: Annotated[Sliders, posted(Sliders, Scope.TRAIN)]
) -> RedirectResponse:
    """Make the change: the next draw follows it, under a new version."""
    curricula: Any = request.app.state.curricula
    present = await curricula.get(curriculum_id)
    if sliders.version not in (None, present.version):
        raise Conflict(
            f"the curriculum is at version {present.version} now, and this page was made for {sliders.version}: load "
            "it again and look at the change anew",
            code="changed_meanwhile",
        )
    try:
        # a form leaves out what is empty, and its shares are all there shall be
        update = sliders.model_copy(update={"shares": sliders.shares or ""}).update(present)
    except ValidationError as error:
        raise Invalid(_said(error), code="bad_rule") from error
    made = await curricula.update(curriculum_id, update)
    return back(f"{PATH}?{urlencode({'curriculum': curriculum_id, 'applied': made.version})}")


def _rule(curriculum: Curriculum) -> Rule:
    return Rule.model_validate({name: getattr(curriculum, name) for name in Rule.model_fields})


def _changes(versions: Sequence[Version], present: Curriculum) -> list[Change]:
    """Newest first."""
    before = [{}, *(version.rule.model_dump() for version in versions[:-1])]
    found = []
    for version, (old, new) in zip(versions, pairwise([*before, versions[-1].rule.model_dump()]), strict=True):
        left = Sliders.of(present.model_copy(update=dict(version.rule)))
        values = left.model_dump(exclude={"version"}, exclude_none=True)
        changed = differences(old, new) if version.version > 1 else []
        query = urlencode({"curriculum": present.curriculum_id, **values})
        found.append(Change(version, changed, query))
    return found[::-1]


def _said(error: ValidationError | Invalid) -> str:
    if isinstance(error, Invalid):
        return error.detail
    first = error.errors(include_url=False)[0]
    place = " ".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
