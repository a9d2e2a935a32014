"""claims.md, .json and .html, and the command that writes them."""

import json
import re
import shlex
from html.parser import HTMLParser

import pytest

from maxsup import cli
from maxsup.lab import options, parsing
from maxsup.lab.commands import finished
from maxsup.lab.data import DATA_SETS
from maxsup.lab.methods import METHODS
from maxsup.lab.recipes import as_json
from maxsup.lab.records import run_directory
from maxsup.lab.report.claims import summarize_claims, write_claims
from maxsup.lab.report.claims.claim import Claim
from maxsup.lab.report.claims.paper import TOPICS
from maxsup.lab.report.claims.tables import numbered
from maxsup.lab.report.fields import flat
from maxsup.lab.segmentation.sources import DATA_SETS as LABELLED
from tests.lab.report import factory
from tests.lab.report.claims.conftest import ALL_UP, CE, EITHER_WAY, LS, OURS, compared, recipe

CLAIMS = [claim for topic in TOPICS for claim in topic.claims]


@pytest.fixture
def directory(tmp_path):
    compared(tmp_path / "one", {LS: EITHER_WAY, OURS: ALL_UP})
    compared(tmp_path / "constant", {LS: [0] * 10, OURS: EITHER_WAY}, recipe(alpha=(0.1, 0.1, "constant")))
    factory.write_run(tmp_path / "one", LS, 7, 0.5, status="diverged")
    return tmp_path


def rows_of(text, start):
    """The cells of the Markdown tables' rows that begin so."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {start}")]


def test_markdown_says_what_the_json_holds(directory, tmp_path):
    paths = write_claims(summarize_claims(directory), tmp_path / "out")
    assert [path.name for path in paths] == ["claims.json", "claims.md", "claims.html"]
    summary = json.loads(paths[0].read_text())
    text = paths[1].read_text()
    for number, claim in numbered(summary):
        glance = rows_of(text, f"{number} {claim['statement']}")[0]
        assert glance[1] == claim["where"]
        assert glance[3].startswith(claim["verdict"])
    assert rows_of(text, "1.1 MaxSup")[0][2:] == [
        "+0.17 to +2.22",
        "confirmed here (1 of 2, 1 of 2 not seen)",
    ]
    constant, one = rows_of(text, f"1.1 accuracy: {OURS} above {CE}")
    assert one[1:] == [
        "one", "accuracy %", "+0.55 [+0.33, +0.77]", "10", "0.0020", "0.0039", "confirmed here", "–",
    ]  # fmt: skip
    assert constant[-2] == "not seen"
    detectable = next(claim for number, claim in numbered(summary) if number == "1.1")["rows"][0]["detectable"]
    assert constant[-1] == f"{100 * detectable:.2f}"
    assert rows_of(text, f"1.2 accuracy: {OURS} above {LS}")[1][4] == "9 (1 left out)"
    assert text.count("- Left out: one: label-smoothing seed 7 diverged: the loss was not finite") >= 1
    assert "0.0039 for n = 9, 0.0020 for n = 10" in text
    assert "(here up to 2 rows)" in text
    assert "8.1, 8.2 not measured. Needed: wrong labels" in text
    assert rows_of(text, "one")[0][1] == "digits; convnet; α 0.1 → 0.2 linear"


def test_the_page_is_whole_and_refers_to_nothing_outside(directory, tmp_path):
    summary = summarize_claims(directory)
    html = write_claims(summary, tmp_path / "out")[2].read_text()
    opened = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "link", "br"):
                opened.append(tag)
            for name, value in attributes:
                assert name not in ("src", "srcset")
                assert name != "href" or value.startswith(("#", "data:")), value

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Checker().feed(html)
    assert opened == []
    for _, claim in numbered(summary):
        assert claim["statement"].replace("'", "&#39;") in html
    assert '<span class="better">confirmed here</span>' in html
    identifiers = re.findall(r'\bid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))


def test_the_command_writes_beside_the_comparisons_or_elsewhere(directory, tmp_path, capsys):
    assert cli.main(["claims", str(directory)]) == 0
    out = capsys.readouterr().out
    assert "confirmed here" in out
    assert f"written: {directory / 'claims.json'}" in out.replace("\n", " ")
    first = (directory / "claims.json").read_text()
    assert cli.main(["claims", str(directory), "--out", str(tmp_path / "else" / "where")]) == 0
    assert (tmp_path / "else" / "where" / "claims.json").read_text() == first


def test_the_command_names_what_it_cannot_read(directory, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["claims", str(tmp_path / "empty")]) == 2
    assert "empty: no comparison here or in a folder below" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["claims"])
    assert "Missing from maxsup claims" in capsys.readouterr().err
    file = run_directory(directory / "one", OURS, 3) / "result.json"
    factory.spoil(file)
    assert cli.main(["claims", str(directory)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"maxsup: {file}: not a readable JSON record")
    assert "## Records that could not be used" in (directory / "claims.md").read_text()
    comparison = directory / "one" / "comparison.json"
    factory.spoil(comparison)
    assert cli.main(["claims", str(directory)]) == 2
    assert capsys.readouterr().err.startswith(f"maxsup: {comparison}: not a readable JSON record")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_commands_that_measure_a_claim_are_read_and_fit_it(claim: Claim):
    trained = []
    for command in claim.commands:
        program, name, *arguments = shlex.split(command)
        assert (program, name in cli.COMMANDS) == ("maxsup", True)
        if name == "compare":
            parsed = parsing.parse_with_recipe(options.Compare, name, arguments)
            assert set(parsed.methods) <= METHODS.keys()
            assert set(claim.methods) <= set(parsed.methods)
            trained.append(flat(as_json(parsed.recipe)))
        elif name == "probe":
            assert parsing.parse_with_paths(options.Probe, name, arguments).data in DATA_SETS
        elif name == "analyze":
            parsing.parse_with_paths(options.Analyze, name, arguments)
        else:
            assert (name, finished.parse_segment(arguments).recipe.data in LABELLED) == ("segment", True)
    fitting = [of for of in trained if claim.setting.holds(of)]
    assert fitting
    if claim.twin is not None:
        twins = [of for of in trained if claim.twin.setting.holds(of) and of not in fitting]
        assert any(claim.twin.differs_only_here(fitting[0], of) for of in twins)


def test_what_the_paper_prints_has_the_sign_that_it_claims():
    """But for label smoothing over cross-entropy, whose MobileNetV2 in Table 7 falls by 0.02 points."""
    against = [
        claim.name for claim in CLAIMS if any((value > 0) != (claim.expected == "higher") for value in claim.printed)
    ]
    assert against == [f"accuracy: {LS} above {CE}"]
    by_name = {claim.name: claim.printed for claim in CLAIMS}
    assert by_name[f"linear probe: {LS} below {CE}"] == pytest.approx([0.7458 - 0.8143])
    assert by_name[f"mIoU: {OURS} above {CE}"] == pytest.approx([0.428 - 0.421])
    assert by_name[f"parts: ls-error-enhancement below {CE}"] == pytest.approx([0.7363 - 0.7421])
    # Table 1, eight columns of Table 4, Table 5 and four columns of Table 7.
    assert len(by_name[f"accuracy: {OURS} above {LS}"]) == 1 + 8 + 1 + 4
