"""The page in a browser: it draws, sorts and filters, and asks nobody for anything."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mergesearch.report import write_page
from tests.report.hand_made import Model, make_run, right
from tests.report.runs import MODELS, ODD, diagnosis, run_of, with_texts
from tests.report.test_page import SECTIONS, killed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Locator, Page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on the path (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        # as root, as in containers, Chromium has no sandbox
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: "Browser", path: Path, width: int = 1400, scheme: str = "light") -> "Page":
    """A page from disk, all of its plots drawn, none of whose messages is an error."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    shown = context.new_page()
    said: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: said.append(request.url))
    shown.goto(path.as_uri(), timeout=120_000)  # a busy machine draws slowly
    shown.wait_for_selector("body[data-drawn]", timeout=60_000)
    assert said == [path.as_uri()]
    plots = shown.locator("[data-plot]").count()
    assert shown.locator("[data-plot] .main-svg").count() >= plots > 0
    assert shown.get_attribute("body", "data-drawn") == str(plots)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    return shown


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_search(browser: "Browser", searched: Path, width: int, scheme: str) -> None:
    shown = opened(browser, searched / "run" / "report.html", width, scheme)
    for name in SECTIONS:
        assert shown.locator(f"#run-1-{name} h2").is_visible()
    ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(15, 19, 23)") is (scheme == "dark")
    drawn = shown.locator("[data-plot$=history] text").first.evaluate("e => e.style.fill")
    assert drawn == ("rgb(231, 235, 239)" if scheme == "dark" else "rgb(26, 32, 39)")


def test_the_leaderboard_sorts_and_filters(browser: "Browser", tmp_path: Path) -> None:
    shown = opened(browser, write_page([run_of(tmp_path / "run", 5)]))
    models = shown.locator("#run-1-board tbody tr:visible td:first-child")
    assert models.all_inner_texts() == ["winner", "one", "two", "finalist 2"]
    head = shown.locator("#run-1-board th", has_text="search")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert models.all_inner_texts() == ["winner", "finalist 2", "one", "two"]
    head.locator("button").click()
    assert models.all_inner_texts() == ["two", "one", "finalist 2", "winner"]
    shown.locator("#run-1-board th button", has_text="held-out").click()
    assert models.all_inner_texts() == ["winner", "one", "two", "finalist 2"]  # unknown comes last
    shown.locator("#run-1-board th button", has_text="model").click()
    assert models.all_inner_texts() == ["finalist 2", "one", "two", "winner"]
    shown.fill("input[data-filter]", "FINAL")
    assert models.all_inner_texts() == ["finalist 2"]


def test_a_recipe_can_be_copied(browser: "Browser", tmp_path: Path) -> None:
    shown = opened(browser, write_page([run_of(tmp_path / "run", 5)]))
    shown.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.locator("#run-1-verdict .copy").first.click()
    shown.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")
    copied = shown.evaluate("navigator.clipboard.readText()")
    assert copied.strip().startswith("merge_method: linear")


def test_odd_names_stay_names(browser: "Browser", tmp_path: Path) -> None:
    models: list[Model] = [(ODD, "winner", right(90), right(80)), *MODELS[1:]]
    run = run_of(tmp_path / "run", 6, models)
    with_texts(run, ODD, "one", ODD)
    shown = opened(browser, write_page([run]))
    assert shown.title() == "run | mergesearch"
    assert ODD in shown.locator("#run-1-board").inner_text()
    assert not shown.get_by_text("prompt ").nth(2).is_visible()
    shown.locator(".spoils > summary").click()
    shown.locator(".spoils .document summary").first.click()
    assert shown.locator(".spoils .document pre").first.inner_text() == f"prompt {ODD}"


def test_a_legend_of_many_models_is_seen_whole_on_a_phone(
    browser: "Browser", tmp_path: Path
) -> None:
    parents: list[Model] = [
        (f"parent {n}", "parent", right(60 - n), right(50 - n)) for n in range(12)
    ]
    run = run_of(tmp_path / "run", 4, [("winner", "winner", right(90), right(80)), *parents])
    shown = opened(browser, write_page([run]), 400)
    trust = shown.locator("[data-plot$=trust]")
    assert trust.locator(".legend .traces").count() == 13  # no more than twelve models are named
    assert trust.locator(".legend .scrollbar").get_attribute("height") == "0"
    assert trust.locator("rect.nsewdrag").bounding_box()["height"] > 200  # type: ignore[index]


def test_three_objectives_have_a_panel_for_each_pair(browser: "Browser", tmp_path: Path) -> None:
    models: list[Model] = [
        ("winner", "winner", right(90), right(80)),
        ("front 2", "front", right(70), right(75)),
        ("one", "parent", right(60), right(50)),
    ]
    sizes = {"winner": 2_000, "front 2": 1_000, "one": 1_000}
    search = {"objectives": ["score", "dev", "size"]}
    run = make_run(tmp_path / "run", models, sizes=sizes, search=search, objectives=True)
    shown = opened(browser, write_page([run]))
    assert shown.locator("[data-plot$=front] .subplot").count() == 3
    assert shown.locator("[data-plot$=front] .errorbar").count() >= 6

    tops = [box["y"] for box in map(box_of, shown.locator("[data-plot$=front] .plot").all())]
    titles = shown.locator("[data-plot$=front] text[class^=x][class$=title]").all()
    ends = [box["y"] + box["height"] for box in map(box_of, titles)]
    assert len(titles) == 3 and all(end < top for end, top in zip(ends, tops[1:], strict=False))


def box_of(found: "Locator") -> "FloatRect":
    box = found.bounding_box()
    assert box is not None
    return box


def test_a_run_that_was_killed_half_way(browser: "Browser", searched: Path) -> None:
    run = killed(searched / "run")
    with (run / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')
    for name in ("report.html", "examples.json", "diagnosis.json"):
        (run / name).unlink()
    shown = opened(browser, write_page([run]), 400)
    assert "was interrupted" in shown.locator("#run-1-search").inner_text()
    assert "Nothing is confirmed yet" in shown.locator("#run-1-verdict").inner_text()


def test_a_run_of_one_trial(browser: "Browser", tmp_path: Path) -> None:
    shown = opened(browser, write_page([run_of(tmp_path / "run", 1)]), 400)
    assert shown.locator("[data-plot$=history] .point").count() == 1
    ticks = shown.locator("[data-plot$=history] .xtick text").all_text_contents()
    assert ticks and all(re.fullmatch(r"[\d,]+", tick) for tick in ticks)
    assert len(ticks) == len(set(ticks))


def test_a_diagnosis_sorts_by_its_numbers_and_plots_can_be_read_in_the_dark(
    browser: "Browser", tmp_path: Path
) -> None:
    run = run_of(tmp_path / "run", 8)
    (run / "diagnosis.json").write_text(diagnosis(9.0, 10.0, 200.0).to_json())
    shown = opened(browser, write_page([run]), 400, "dark")
    ink = "rgb(231, 235, 239)"
    label = shown.locator("[data-plot$=parallel] .annotation-text").first
    assert label.evaluate("e => getComputedStyle(e).fill") == ink
    whisker = shown.locator("[data-plot$=tasks] .errorbar path").first
    assert whisker.evaluate("e => getComputedStyle(e).stroke") == ink
    shown.locator("nav a", has_text="Diagnosis").click()
    table = shown.locator("#run-1-diagnosis table").first
    head = table.locator("th", has_text="one").first
    sizes = table.locator("tbody td:nth-child(2)")
    assert sizes.all_inner_texts() == ["900.00%", "1000.00%", "20000.00%"]
    for order in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        wanted = ["20000.00%", "1000.00%", "900.00%"][:: 1 if order == "descending" else -1]
        assert sizes.all_inner_texts() == wanted


def test_two_thousand_trials_are_drawn(browser: "Browser", tmp_path: Path) -> None:
    shown = opened(browser, write_page([run_of(tmp_path / "run", 2_000)]), 400)
    assert shown.locator("[data-plot$=history] .point").count() == 2_000


def test_a_live_page_loads_itself_again(browser: "Browser", tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 5)
    path = write_page([run], live=True)
    path.write_text(path.read_text().replace('data-reload="10"', 'data-reload="1"'))
    shown = browser.new_page()
    shown.goto(path.as_uri(), timeout=120_000)  # a busy machine draws slowly
    path.write_text(path.read_text().replace("<h1>run", "<h1>again"))
    shown.wait_for_function("document.querySelector('h1')?.textContent.startsWith('again')")


def test_it_is_printed_in_light_colours_with_its_recipe(browser: "Browser", tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 5)
    path = write_page([run])
    path.write_text(path.read_text().replace("<pre tabindex", "<details><pre tabindex", 1))
    shown = opened(browser, path, scheme="dark")
    label = shown.locator("[data-plot$=history] text").first
    drawn = "e => e.style.fill"
    shown.evaluate("dispatchEvent(new Event('beforeprint'))")
    shown.wait_for_function("getComputedStyle(document.body).color === 'rgb(26, 32, 39)'")
    shown.wait_for_timeout(500)
    assert label.evaluate(drawn) == "rgb(26, 32, 39)"
    assert shown.locator(".code details").first.get_attribute("open") is not None
    shown.evaluate("dispatchEvent(new Event('afterprint'))")
    shown.wait_for_timeout(500)
    assert label.evaluate(drawn) == "rgb(231, 235, 239)"
    assert shown.locator(".code details").first.get_attribute("open") is None
