import shutil

import pytest

from maxsup.lab.records import read_comparison
from maxsup.lab.report import figures, gallery, write_report
from tests.lab.report import factory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(22, 24, 27)"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory):
    directory = factory.analyzed(tmp_path_factory.mktemp("analyzed"))
    write_report(directory)
    return directory / "report.html"


@pytest.fixture
def opened(browser):
    """Opens a file in a page of its own; at the end there must have been no error and no request beyond the file."""
    pages, problems, requests = [], [], []

    def open_(path, **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    for page in pages:
        page.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def column(page, table, head):
    """The texts of a column, top down, without the cells' second lines."""
    heads = [text.strip() for text in page.locator(f"#{table} thead th").all_inner_texts()]
    place = heads.index(head) + 1
    return [text.split("\n")[0] for text in page.locator(f"#{table} tbody tr > :nth-child({place})").all_inner_texts()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("make", [factory.comparison, factory.damaged, factory.spoiled])
def test_the_page_opens_without_network_and_errors(opened, tmp_path, make, scheme):
    write_report(make(tmp_path))
    page = opened(tmp_path / "report.html", color_scheme=scheme)
    assert page.title().endswith(" – maxsup comparison")
    assert page.locator("#runs").inner_text() == "Runs"
    assert page.locator("#all-runs tbody tr").count() == (30 if make is factory.spoiled else 6)
    if make is factory.comparison:
        assert column(page, "accuracy-1", "accuracy %") == ["92.0 ± 2.0", "93.0 ± 1.7"]
    assert page.locator("figure svg").first.bounding_box()["height"] > 100
    assert background(page) == (LIGHT if scheme == "light" else DARK)
    ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == ("rgb(26, 28, 31)" if scheme == "light" else "rgb(230, 232, 234)")


def test_a_table_sorts_by_its_numbers(opened, analyzed):
    page = opened(analyzed)
    head = page.locator("#accuracy-1 th", has_text="NLL")
    assert column(page, "accuracy-1", "method") == ["cross-entropy", "label-smoothing", "max-sup"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "accuracy-1", "method") == ["cross-entropy", "max-sup", "label-smoothing"]
    # By keyboard, and the other way round.
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "accuracy-1", "method") == ["label-smoothing", "max-sup", "cross-entropy"]
    # Another column takes over; its order is that of the numbers, not of the texts with their signs.
    page.locator("#accuracy-2 th", has_text="accuracy %").get_by_role("button").click()
    assert column(page, "accuracy-2", "method") == ["label-smoothing", "max-sup"]
    page.locator("#accuracy-1 th", has_text="method").get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, "accuracy-1", "method") == ["cross-entropy", "label-smoothing", "max-sup"]


def test_rows_without_a_value_stay_last(opened, tmp_path):
    write_report(factory.damaged(tmp_path))
    page = opened(tmp_path / "report.html")
    button = page.locator("#all-runs th", has_text="tested epoch").get_by_role("button")
    for _ in range(2):
        button.click()
        assert column(page, "all-runs", "tested epoch") == ["4", "4", "–", "–", "–", "–"]


def test_the_theme_switches_and_is_remembered(opened, analyzed):
    page = opened(analyzed, color_scheme="dark")
    button = page.get_by_role("button", name="Theme")
    seen = []
    for _ in range(4):
        seen.append((button.inner_text(), background(page)))
        button.click()
    assert seen == [("Theme: auto", DARK), ("Theme: light", LIGHT), ("Theme: dark", DARK), ("Theme: auto", DARK)]
    page.reload()
    assert (button.inner_text(), background(page)) == ("Theme: light", LIGHT)
    page.emulate_media(media="print")
    page.get_by_role("button", name="Theme", include_hidden=True).evaluate("button => button.click()")
    assert background(page) == LIGHT  # paper is white, whatever the theme


def test_every_link_leads_somewhere(opened, analyzed):
    page = opened(analyzed)
    links = page.locator("a").all()
    targets = [link.get_attribute("href") for link in links]
    assert len(targets) == 14
    for link, target in zip(links, targets, strict=True):
        assert target.startswith("#")
        assert page.locator(f"[id='{target[1:]}']").count() == 1
        link.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("location.hash") == target
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(of => of.id)")
    assert len(ids) == len(set(ids))


def test_what_is_closed_is_printed(opened, analyzed):
    page = opened(analyzed)
    table = page.locator("#all-tests")
    assert not table.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert table.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not table.is_visible()


CONTRAST = """
() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((x) => {
    const v = x / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  const light = (colour) => channels(colour).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const back = light(getComputedStyle(document.body).backgroundColor);
  const words = document.querySelectorAll("p, a, th, td, span, li, dt, dd, summary, button, figcaption");
  return Math.min(...[...words].map((of) => {
    const ink = light(getComputedStyle(of).color);
    return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
  }));
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(opened, analyzed, scheme):
    # WCAG 2 asks for 4.5 : 1.
    assert opened(analyzed, color_scheme=scheme).evaluate(CONTRAST) > 4.5


def test_the_page_names_what_went_wrong_as_text(tmp_path):
    write_report(factory.damaged(tmp_path))
    html = (tmp_path / "report.html").read_text()
    assert "RuntimeError: &lt;out of &amp; luck&gt;" in html
    assert "metrics.jsonl: line 4 is not JSON" in html
    assert str(tmp_path) not in html
    for state in ("diverged", "failed", "missing"):
        assert f'<td class="text">{state}</td>' in html


def test_spoiled_records_are_named_in_their_place(opened, tmp_path):
    write_report(factory.spoiled(tmp_path))
    page = opened(tmp_path / "report.html")

    def section(name):
        return page.locator(f"section[aria-labelledby='{name}']").inner_text()

    assert "max-sup seed 0: outputs.safetensors: damaged" in section("calibration")
    assert "max-sup seed 1: analysis.json: not a readable JSON record" in section("selective")
    assert "cross-entropy seed 3: probe-digits.json: not a readable JSON record" in section("transfer")
    assert "cross-entropy seed 4: localization-fashion-scenes.json: not such a record" in section("overlays")
    rows = dict(
        zip(
            zip(column(page, "all-runs", "method"), column(page, "all-runs", "seed"), strict=True),
            zip(column(page, "all-runs", "state"), column(page, "all-runs", "problem"), strict=True),
            strict=True,
        )
    )
    assert rows["label-smoothing", "2"] == ("diverged", "the loss was not finite any more in epoch 5")
    assert rows["max-sup", "5"] == ("missing", "run.json is missing: it was not started")
    assert rows["max-sup", "0"][0] == "finished"
    assert rows["max-sup", "0"][1].startswith("outputs.safetensors: damaged")
    assert column(page, "accuracy-1", "n") == ["10", "9, 1 diverged", "9, 1 missing"]


def test_a_comparison_without_a_single_epoch_still_has_a_page(tmp_path):
    factory.comparison(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    written = write_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert '<td class="text">missing</td>' in html
    assert "<figure>" not in html
    assert tmp_path / "training-curves.svg" not in written


def test_ids_of_embedded_pictures_do_not_meet():
    svg = '<svg><defs><clipPath id="p1"/></defs><g id="axes_1" clip-path="url(#p1)"><use href="#p1"/></g></svg>'
    embedded = gallery.embedded(figures.Picture("one", "Title", "caption", svg))
    assert embedded == (
        '<svg role="img" aria-labelledby="figure-one-title"><defs><clipPath id="one-p1"/></defs>'
        '<g id="one-axes_1" clip-path="url(#one-p1)"><use href="#one-p1"/></g></svg>'
    )


def test_figures_are_deterministic_and_leave_matplotlib_alone(tmp_path):
    import matplotlib as mpl

    comparison = read_comparison(factory.comparison(tmp_path))
    before = dict(mpl.rcParams)
    assert figures.training_curves(comparison) == figures.training_curves(comparison)
    assert dict(mpl.rcParams) == before


def test_methods_differ_in_colour_or_dash():
    methods = [str(i) for i in range(20)]
    styles = {tuple(figures.method_style(methods, method).values()) for method in methods}
    assert len(styles) == 20
