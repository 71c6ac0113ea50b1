"""Stage 1: problem sets, problems, imports, decisions."""

from collections.abc import Sequence
from pathlib import Path

from paced import wire
from paced.calls import Call, Pages, at, get, listed, patch, post, present, route


class ProblemRoutes:
    """Calls on problem sets and their problems."""

    @route
    def create_problem_set(self, body: wire.ProblemSetCreate) -> Call[wire.ProblemSet]:
        """Create a problem set; the same one again is returned."""
        return post("/v1/problem-sets", body, wire.ProblemSet)

    @route
    def problem_set(self, name: str) -> Call[wire.ProblemSet]:
        """One problem set."""
        return get(at("/v1/problem-sets/{}", name), wire.ProblemSet)

    @listed
    def problem_sets(self) -> Pages[wire.ProblemSet]:
        """All problem sets."""
        return Pages("/v1/problem-sets", wire.ProblemSet)

    @listed
    def problems(
        self,
        problem_set: str,
        *,
        tag: str | None = None,
        search: str | None = None,
        state: wire.ProblemState | str | None = None,
        limit: int | None = None,
    ) -> Pages[wire.Problem]:
        """Problems of a set by ordinal: those with a tag, with a text in their prompt, in a state; `limit` a page."""
        query = {"tag": tag, "search": search, "state": state, "limit": limit}
        return Pages(at("/v1/problem-sets/{}/problems", problem_set), wire.Problem, query)

    @route
    def problem(self, problem_set: str, ordinal: int) -> Call[wire.Problem]:
        """One problem by its place in the set."""
        return get(at("/v1/problem-sets/{}/problems/{}", problem_set, ordinal), wire.Problem)

    @route
    def problem_texts(self, body: wire.ProblemTextsQuery) -> Call[wire.ProblemTexts]:
        """Texts of problems, without those whose ETag is still the one given; `with_texts` keeps them for you."""
        return post("/v1/problem-texts/query", body, wire.ProblemTexts)

    @route
    def import_problems(
        self,
        problem_set: str,
        path: Path | str,
        *,
        prompt_field: str | None = None,
        answer_field: str | None = None,
        tags_field: str | None = None,
        prompt_template: str | None = None,
        answer_template: str | None = None,
        source: str | None = None,
        allow_no_answer: bool | None = None,
        dry_run: bool | None = None,
        near_twins: wire.NearTwins | str | None = None,
        exclude_overlap: Sequence[str] | None = None,
        report_overlap: Sequence[str] | None = None,
    ) -> Call[wire.ImportReport]:
        """Stream a file (JSONL, JSON, CSV, Parquet, Arrow; plain, gzip or zstandard) into a set.

        Templates are Jinja over a row's fields; the overlaps name benchmark sets. Rows already there are twins.
        """
        query = {
            "file_name": Path(path).name,
            "prompt_field": prompt_field,
            "answer_field": answer_field,
            "tags_field": tags_field,
            "prompt_template": prompt_template,
            "answer_template": answer_template,
            "source": source,
            "allow_no_answer": allow_no_answer,
            "dry_run": dry_run,
            "near_twins": near_twins,
            "exclude_overlap": exclude_overlap,
            "report_overlap": report_overlap,
        }
        place = at("/v1/problem-sets/{}/imports", problem_set)
        return Call("POST", place, wire.ImportReport.model_validate_json, present(query), file=Path(path))

    @route
    def decide(self, problem_set: str, ordinal: int, body: wire.ProblemDecision) -> Call[wire.Problem]:
        """Serve, set aside or leave out a problem; leases and draws follow."""
        return patch(at("/v1/problem-sets/{}/problems/{}", problem_set, ordinal), body, wire.Problem)

    @listed
    def decisions(self, problem_set: str) -> Pages[wire.Decision]:
        """Who decided what about the problems of a set, oldest first."""
        return Pages(at("/v1/problem-sets/{}/decisions", problem_set), wire.Decision)
