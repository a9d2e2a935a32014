import shutil

import pytest

from maxsup.lab.records import read_comparison
from maxsup.lab.report import figures, write_report
from tests.lab.report import factory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("make", [factory.comparison, factory.damaged])
def test_the_page_opens_without_network_and_errors(browser, tmp_path, make, scheme):
    write_report(make(tmp_path))
    page = browser.new_page(color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.title() == "small & simple – maxsup comparison"
    rows = page.locator("table.results").first.locator("tbody tr")
    assert rows.count() == 2
    if make is factory.comparison:
        assert "92.0 ± 2.0" in rows.first.inner_text()
    assert page.locator("#runs tbody tr").count() == 6
    assert page.locator("figure svg").bounding_box()["height"] > 100
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 27)")
    ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == ("rgb(26, 28, 31)" if scheme == "light" else "rgb(230, 232, 234)")
    page.close()


def test_the_page_names_what_went_wrong_as_text(tmp_path):
    write_report(factory.damaged(tmp_path))
    html = (tmp_path / "report.html").read_text()
    assert "RuntimeError: &lt;out of &amp; luck&gt;" in html
    assert "metrics.jsonl: line 4 is not JSON" in html
    for state in ("diverged", "failed", "missing"):
        assert f'<td class="left">{state}</td>' in html


def test_a_comparison_without_a_single_epoch_still_has_a_page(tmp_path):
    factory.comparison(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    write_report(tmp_path)
    assert '<td class="left">missing</td>' in (tmp_path / "report.html").read_text()


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
