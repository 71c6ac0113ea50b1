"""Pages for people: what a student can do, where its frontier is, and why each problem was served.

A page is one view function that returns a frozen dataclass. `twins.page` serves it three times: as HTML at its path,
as JSON at `path.json`, and as CSV at `path.csv` where it has rows. To add one:

1. a module with `router = APIRouter(include_in_schema=False)`, the dataclass and the view; put the router into ROUTERS
   in `routers.py`, and a page of the menu into `navigation.PAGES`;
2. a template that extends `base.html`; `found` is the dataclass, `figures` what `figures=` made of it;
3. a figure is a `figures.Figure`: a Plotly figure as plain dictionaries with colours named `$blue`, and the same
   numbers as a table; `{{ figure("name") }}` shows both;
4. a form posts with `{{ csrf() }}` in it, to a route that takes `Annotated[Model, forms.posted(Model, Scope.TRAIN)]`
   and answers with `forms.back(url)`; show it only where `session.may("train")`;
5. what `live=` names is watched: sections with an id and the class `live`, and figures, follow without a reload;
6. a test in tests/dashboard, and the path in tests/browser/pages.py, which has every page checked in Chromium.

Data comes from the services of the stages, in `request.app.state`; nothing of the stages imports this package.
"""
