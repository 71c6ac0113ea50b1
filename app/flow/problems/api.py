"""Routes of stage 1: problem sets, problems, imports."""

from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from app.auth.guard import requires
from app.flow.problems.importing import ImportOptions
from app.flow.problems.reading.drafts import MIB, ReadOptions
from app.flow.problems.service import ProblemService
from app.http.pages import NoQuery, PageQuery, page
from app.settings import Settings
from paced.wire import (
    NO_NUL,
    Decision,
    ImportReport,
    NearTwins,
    Page,
    Problem,
    ProblemDecision,
    ProblemSet,
    ProblemSetCreate,
    ProblemState,
    Scope,
)

router = APIRouter(prefix="/v1/problem-sets", tags=["1 problems"])


class ProblemQuery(PageQuery):
    """Filters of the problem list."""

    tag: Annotated[str | None, Field(max_length=200, pattern=NO_NUL, description="Only problems with this tag")] = None
    search: Annotated[
        str | None, Field(max_length=200, pattern=NO_NUL, description="Only prompts that contain this")
    ] = None
    state: Annotated[ProblemState | None, Field(description="Only problems in this state")] = None


FieldName = Annotated[str | None, Field(max_length=200)]
TemplateText = Annotated[str | None, Field(max_length=10_000, pattern=NO_NUL)]


class ImportQuery(NoQuery):
    """How to read the uploaded file, and what to do with it; fields left out are detected."""

    file_name: Annotated[str, Field(min_length=1, max_length=400, pattern=NO_NUL)]
    prompt_field: FieldName = None
    answer_field: FieldName = None
    tags_field: FieldName = None
    prompt_template: TemplateText = None
    answer_template: TemplateText = None
    allow_no_answer: Annotated[bool, Field(description="Store rows without a field for the answer, flagged")] = False
    source: Annotated[str | None, Field(max_length=400, pattern=NO_NUL)] = None
    dry_run: Annotated[bool, Field(description="Store nothing, report everything; the set need not exist")] = False
    near_twins: NearTwins = NearTwins.REPORT
    exclude_overlap: Annotated[
        list[str], Field(max_length=50, description="Sets that training must not see: rows that they hold are flagged")
    ] = []
    report_overlap: Annotated[
        list[str], Field(max_length=50, description="Sets whose rows are reported, not flagged")
    ] = []

    def options(self, settings: Settings) -> ImportOptions:
        """Options of the readers and of the import."""
        fields = self.model_dump(exclude={"file_name", "dry_run", "near_twins", "exclude_overlap", "report_overlap"})
        return ImportOptions(
            ReadOptions(**fields, max_line_bytes=int(settings.max_line_mb * MIB)),
            is_dry_run=self.dry_run,
            near_twins=self.near_twins,
            exclude_overlap=frozenset(self.exclude_overlap),
            report_overlap=frozenset(self.report_overlap),
        )


def _problems(request: Request) -> ProblemService:
    return cast("ProblemService", request.app.state.problems)


@router.post("", status_code=201, operation_id="create_problem_set", dependencies=[requires(Scope.IMPORT)])
async def create_set(request: Request, body: ProblemSetCreate, _query: Annotated[NoQuery, Query()]) -> ProblemSet:
    """Create a problem set; the same one again is returned."""
    return await _problems(request).create_set(body)


@router.get("", operation_id="list_problem_sets", dependencies=[requires(Scope.READ)])
async def list_sets(request: Request, response: Response, query: Annotated[PageQuery, Query()]) -> Page[ProblemSet]:
    """Problem sets by name."""
    items = await _problems(request).sets(query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "name")


@router.get("/{name}", operation_id="get_problem_set", dependencies=[requires(Scope.READ)])
async def get_set(request: Request, name: str, _query: Annotated[NoQuery, Query()]) -> ProblemSet:
    """One problem set."""
    return await _problems(request).get_set(name)


@router.post(
    "/{name}/imports",
    status_code=201,
    operation_id="import_problems",
    dependencies=[requires(Scope.IMPORT)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary"},
                    "example": '{"question": "Compute 7 * 8.", "answer": "56"}\n',
                }
            },
        }
    },
)
async def import_problems(request: Request, name: str, query: Annotated[ImportQuery, Query()]) -> ImportReport:
    """Stream a file into a set: JSONL, JSON, CSV, Parquet or Arrow, plain, gzip or zstandard."""
    options = query.options(request.app.state.settings)
    return await _problems(request).import_file(name, query.file_name, options, request.stream())


@router.get("/{name}/problems", operation_id="list_problems", dependencies=[requires(Scope.READ)])
async def list_problems(
    request: Request, response: Response, name: str, query: Annotated[ProblemQuery, Query()]
) -> Page[Problem]:
    """Problems of a set by ordinal."""
    wanted = {"tag": query.tag, "search": query.search, "state": query.state}
    items = await _problems(request).problems(name, query.after(int), query.limit + 1, **wanted)
    return page(request, response, items, query.limit, "ordinal")


@router.get("/{name}/problems/{ordinal}", operation_id="get_problem", dependencies=[requires(Scope.READ)])
async def get_problem(
    request: Request, name: str, ordinal: Annotated[int, Path(ge=0, lt=2**31)], _query: Annotated[NoQuery, Query()]
) -> Problem:
    """One problem by its place in the set."""
    return await _problems(request).problem(name, ordinal)


@router.patch("/{name}/problems/{ordinal}", operation_id="decide_problem", dependencies=[requires(Scope.IMPORT)])
async def decide(
    request: Request,
    name: str,
    ordinal: Annotated[int, Path(ge=0, lt=2**31)],
    body: ProblemDecision,
    _query: Annotated[NoQuery, Query()],
) -> Problem:
    """Serve, set aside or leave out a problem; leases and draws follow from the next one on."""
    return await _problems(request).decide(name, ordinal, body)


@router.get("/{name}/decisions", operation_id="list_decisions", dependencies=[requires(Scope.READ)])
async def list_decisions(
    request: Request, response: Response, name: str, query: Annotated[PageQuery, Query()]
) -> Page[Decision]:
    """Who decided what about the problems of a set, oldest first."""
    items = await _problems(request).decisions(name, query.after(int), query.limit + 1)
    return page(request, response, items, query.limit, "decision_id")
