import dataclasses

import pytest

from maxsup.lab.analysis.probe import record_name
from maxsup.lab.data.glyphs.sets import BASE
from maxsup.lab.recipes import RECIPES, Alpha, Data
from maxsup.lab.studies import STUDIES, evidence, paper, parts
from maxsup.lab.studies.study import Column, Row, as_record, changes

SEVEN = [
    "cross-entropy",
    "label-smoothing",
    "online-label-smoothing",
    "zipf-label-smoothing",
    "max-sup",
    "logit-penalty",
    "confidence-penalty",
]
PARTS = ["cross-entropy", "label-smoothing", "ls-regularization", "ls-error-enhancement", "ls-error-enhancement-max"]
SCHEDULED = Alpha(0.1, 0.2, "linear")
DEIT = RECIPES["glyphs-deit"]()


def variants(name):
    study = evidence.STUDIES[name]()
    return {of.name: (of.recipe, len(of.seeds), study.methods(of.name)) for of in study.variants}


def settings(recipe):
    return recipe.name, recipe.data.train_size, recipe.epochs, recipe.batch_size, recipe.selection, recipe.alpha


def test_the_list_has_both_kinds_of_studies():
    assert list(STUDIES) == [*paper.STUDIES, *evidence.STUDIES]
    assert list(evidence.STUDIES) == [
        "fashion-mnist",
        "glyphs",
        "glyphs-deit",
        "glyphs-transfer",
        "alpha",
        "label-noise",
        "imbalance",
    ]


def test_fashion_mnist():
    (few, seeds, methods), (whole, more_seeds, more_methods) = variants("fashion-mnist").values()
    assert list(variants("fashion-mnist")) == ["fashion-mnist-5k", "fashion-mnist-55k"]
    assert settings(few) == ("fashion-mnist-resnet18", 5000, 60, 256, "best", SCHEDULED)
    assert settings(whole) == ("fashion-mnist-resnet18", None, 20, 256, "best", SCHEDULED)
    assert few.model == whole.model == RECIPES["fashion-mnist-resnet18"]().model
    assert (seeds, more_seeds) == (10, 6)
    assert methods == more_methods == SEVEN
    study = evidence.fashion_mnist()
    assert (study.analyze, study.probe) == (True, Data("digits"))


def test_glyphs():
    found = variants("glyphs")
    assert list(found) == ["glyphs-resnet18", "glyphs-mobilenetv2"]
    for name, (recipe, seeds, methods) in found.items():
        assert recipe == RECIPES[name]()
        assert (recipe.alpha, seeds, methods) == (SCHEDULED, 10, SEVEN)
    assert evidence.glyphs().probe == Data("digits")


def test_a_small_deit_has_the_schedule_and_the_parts_at_constant_alpha():
    found = variants("glyphs-deit")
    assert list(found) == ["glyphs-deit", "glyphs-deit-alpha-constant"]
    assert found["glyphs-deit"] == (DEIT, 8, SEVEN)
    assert DEIT.alpha == SCHEDULED
    constant, seeds, methods = found["glyphs-deit-alpha-constant"]
    assert constant == dataclasses.replace(DEIT, alpha=Alpha(0.1, 0.1, "constant"))
    assert (seeds, sorted(methods)) == (8, sorted([*PARTS, "max-sup"]))
    study = evidence.glyphs_deit()
    schedule, *ours = study.contrasts
    assert schedule.title == "α 0.1 → 0.2 less α = 0.1"
    assert {pair.row for pair in schedule.pairs} == {"label-smoothing", "max-sup"}
    for pair in schedule.pairs:
        (r, c), (s, d) = pair.of, pair.than
        assert study.rows[r] == study.rows[s] == Row(pair.row, pair.row)
        assert study.columns[c].measure == study.columns[d].measure
        assert (study.columns[c].variant, study.columns[d].variant) == tuple(found)
    assert [of.title for of in ours] == [f"max-sup less label-smoothing, α {of}" for of in ("0.1 → 0.2", "= 0.1")]


def test_half_of_the_glyphs_classes_are_held_out_pairs_of_one_shape_together():
    found = variants("glyphs-transfer")
    assert list(found) == ["glyphs-resnet18-half", "glyphs-mobilenetv2-half"]
    seen = "".join(BASE[c] for c in evidence.SEEN)
    assert seen == "01234ABCDEFGHIJKLMabcdefghijklm"
    assert sorted((*evidence.SEEN, *evidence.HELD_OUT)) == list(range(len(BASE)))
    for name, (recipe, seeds, methods) in found.items():
        plain = RECIPES[name.removesuffix("-half")]()
        assert recipe == dataclasses.replace(plain, data=dataclasses.replace(plain.data, classes=evidence.SEEN))
        assert (seeds, methods) == (10, SEVEN)
    study = evidence.glyphs_transfer()
    assert study.probe == Data("glyphs", train_size=3100, classes=evidence.HELD_OUT)
    record = record_name(study.probe).removeprefix("probe-").removesuffix(".json")
    keys = {column.measure.key for column in study.columns if column.measure.key.startswith("probe.")}
    assert keys == {f"probe.{record}.linear", f"probe.{record}.knn"}


def test_alpha_is_swept_with_the_cross_entropy_of_fashion_mnist():
    found = variants("alpha")
    values = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    assert list(found) == ["fashion-mnist-5k", *(f"fashion-mnist-5k-alpha-{a}" for a in values)]
    recipe, seeds, methods = found.pop("fashion-mnist-5k")
    assert (recipe, seeds, methods) == (variants("fashion-mnist")["fashion-mnist-5k"][0], 10, ["cross-entropy"])
    for a, (changed, seeds, methods) in zip(values, found.values(), strict=True):
        assert changed == dataclasses.replace(recipe, alpha=Alpha(a, a, "constant"))
        assert (seeds, methods) == (10, ["label-smoothing", "max-sup"])
    accuracy = [column.title for column in evidence.alpha().columns if column.group == "accuracy %"]
    assert accuracy == [f"α = {a}" for a in values]


def test_wrong_labels_and_long_tail_are_those_of_the_page_on_robustness():
    found = variants("label-noise") | variants("imbalance")
    names = [f"fashion-mnist-5k-{of}" for of in ("noise-0", "noise-20", "noise-40", "imbalance-50")]
    assert list(found) == names
    for recipe, seeds, methods in found.values():
        assert settings(recipe) == ("fashion-mnist-resnet18", 5000, 100, 128, "last", SCHEDULED)
        assert (seeds, methods) == (8, SEVEN)
    data = [found[name][0].data for name in names]
    assert [of.label_noise for of in data] == [0.0, 0.2, 0.4, 0.0]
    assert [of.imbalance for of in data] == [None, None, None, 50.0]
    assert {of.noise_kind for of in data} == {"symmetric"}


@pytest.mark.parametrize("name", evidence.STUDIES)
def test_nothing_of_the_campaign_stands_beside_the_paper(name):
    study = evidence.STUDIES[name]()
    assert study.name == name
    assert study.published is False
    record = as_record(study, changes(study, study), rehearsal=False)
    assert all(cell["paper"] == {"mean": None, "std": None} and cell["differs"] == [] for cell in record["cells"])
    # A table has a title once, and a contrast a difference once.
    assert len({(of.group, of.title) for of in study.columns}) == len(study.columns)
    for contrast in study.all_contrasts():
        assert len({(pair.row, pair.column) for pair in contrast.pairs}) == len(contrast.pairs)
    titles = [of.title for of in study.all_contrasts()]
    assert len(set(titles)) == len(titles)


def test_rows_that_no_study_has_are_refused():
    study = evidence.imbalance()
    column = Column("x", study.variants[0].name, parts.ACCURACY, rows=("max-supp",))
    with pytest.raises(ValueError, match="unknown row 'max-supp'; did you mean max-sup"):
        dataclasses.replace(study, columns=(column,))


def test_the_papers_studies_have_three_seeds_and_one_table():
    for study in (make() for make in paper.STUDIES.values()):
        assert {of.seeds for of in study.variants} == {(0, 1, 2)}
        assert list(study.groups()) == [""]
        assert study.published is True
