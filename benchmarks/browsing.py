"""What a reader waits for in a browser that has never seen the dashboard: the first figure, and all of them."""

import os
import shutil
import statistics
from typing import Any

from playwright.sync_api import Playwright, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
N_VISITS = 7
PATIENCE_MS = 60_000
# the moments, in ms since the visit began, at which a figure had been drawn and then painted
NOTING = """
window.painted = [];
new MutationObserver((changes) => {
  for (const change of changes) {
    if (!change.target.matches(".plot")) continue;
    requestAnimationFrame(() => setTimeout(() => window.painted.push(performance.now())));
  }
}).observe(document, {subtree: true, attributeFilter: ["data-drawn"]});
"""
ALL_PAINTED = "window.painted.length > 0 && window.painted.length >= document.querySelectorAll('.plot').length"


def find_chromium() -> str | None:
    """The browser that PACED_TEST_CHROMIUM names, or one on the path."""
    return os.environ.get("PACED_TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def first_figure(url: str, key: str, path: str) -> dict[str, Any]:
    """Figures `first_figure_s` and `all_figures_s`, medians over visits with a new browser each; None without Chromium.

    The visitor is signed in; nothing is cached, neither files nor compiled scripts.
    """
    found = find_chromium()
    if found is None:
        return {"first_figure_s": None, "all_figures_s": None}
    with sync_playwright() as playwright:
        visits = [_visit(playwright, found, url, key, path) for _ in range(N_VISITS)]
    return {
        "first_figure_s": round(statistics.median(first for first, _ in visits) / 1000, 2),
        "first_figure_worst_s": round(max(first for first, _ in visits) / 1000, 2),
        "all_figures_s": round(statistics.median(last for _, last in visits) / 1000, 2),
    }


def _visit(playwright: Playwright, chromium: str, url: str, key: str, path: str) -> tuple[float, float]:
    """Milliseconds until the first figure was painted, and the last."""
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    context = browser.new_context()
    context.request.post(f"{url}/sign-in", form={"key": key}, max_redirects=0)
    page = context.new_page()
    page.add_init_script(NOTING)
    page.goto(url + path, timeout=PATIENCE_MS)
    for _ in range(PATIENCE_MS // 50):  # asked from outside: the page's policy allows no evaluated texts
        if page.evaluate(ALL_PAINTED):
            break
        page.wait_for_timeout(50)
    else:
        raise RuntimeError(f"not all figures of {path} were drawn within {PATIENCE_MS // 1000} s")
    painted = page.evaluate("window.painted")
    browser.close()
    return float(painted[0]), float(painted[-1])
