"""`python -m docs.screenshots --url URL --key KEY`: pictures of every page of a running service, light and dark."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from benchmarks.browsing import FLAGS, find_chromium
from paced import Client

SIZES = {"": ViewportSize(width=1280, height=800), "-narrow": ViewportSize(width=360, height=740)}
THEMES = ("light", "dark")
DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)"
PATIENCE_MS = 20_000
MAX_COMPARED = 16


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots", description=__doc__)
    parser.add_argument("--url", help="the service; PACED_URL if left out")
    parser.add_argument("--key", help="a key with the scope read; PACED_KEY if left out")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these pages alone")
    parser.add_argument("--narrow", action="store_true", help="also 360 px wide")
    parser.add_argument("--chromium", default=find_chromium(), help="path of the browser")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Client(arguments.url, arguments.key) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=FLAGS)
        addresses = {name: at for name, at in pages(client) if name in (arguments.only or [name])}
        for theme in THEMES:
            for suffix, size in SIZES.items():
                if suffix and not arguments.narrow:
                    continue
                page = opened(browser, theme, size)
                for name, address in addresses.items():  # the first needs no session
                    if name != "sign-in" and not page.context.cookies():
                        sign_in(page, client)
                    take(page, client.url + address, arguments.out / f"{name}-{theme}{suffix}.png")
        browser.close()
    print(f"{len(list(arguments.out.glob('*.png')))} pictures in {arguments.out}{os.sep}")  # noqa: T201 - a command


def pages(client: Client) -> Iterator[tuple[str, str]]:
    """A name and an address for each page that the service has something for: of its newest curriculum."""
    curriculum = max(client.curricula(), key=lambda one: one.created_at)
    chosen = f"curriculum={curriculum.curriculum_id}"
    yield "sign-in", "/sign-in"
    for name in ("overview", "problems", "workers", "disputes", "curricula", "batches", "runs"):
        yield name, f"/{name}?{chosen}"
    yield "preview", f"/curricula?{chosen}&gamma=6&band_low=0.1&band_high=0.9"
    middle = list(client.estimates(curriculum.measurement_id, query="p>0.3 p<0.7 sort:-attempts", limit=1))[:1]
    for estimate in middle:
        yield "problem", f"/problems/{curriculum.problem_set}/{estimate.ordinal}?{chosen}"
    for batch in list(client.batches(curriculum.curriculum_id))[-1:]:
        yield "batch", f"/batches/{batch.batch_id}"
    runs = list(client.runs(curriculum.curriculum_id))
    for run in runs[-1:]:
        yield "run", f"/runs/{run.run_id}"
    # arms of a comparison have a curriculum each
    several = sorted(runs if len(runs) > 1 else client.runs(), key=lambda run: run.name)
    if len(several) > 1:
        compared = "&".join(f"run_id={run.run_id}" for run in several[:MAX_COMPARED])
        yield "comparison", f"/runs/compare?{chosen}&metric=pass_rate&{compared}"


def opened(browser: Browser, theme: str, size: ViewportSize) -> Page:
    """A page of a browser that nobody has signed in."""
    return browser.new_context(viewport=size, color_scheme="dark" if theme == "dark" else "light").new_page()


def sign_in(page: Page, client: Client) -> None:
    """Use up a link."""
    page.goto(client.url + client.create_sign_in_link().path)
    page.get_by_role("button", name="Open the dashboard").click()


def take(page: Page, address: str, file: Path) -> None:
    """One picture, once every figure is drawn; a page that is not there leaves none."""
    answer = page.goto(address)
    if answer is None or not answer.ok:
        return
    for _ in range(PATIENCE_MS // 100):
        if page.evaluate(DRAWN):
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)  # transitions
    page.screenshot(path=file, full_page=True)


if __name__ == "__main__":
    main()
