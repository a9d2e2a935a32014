"""Sets of glyphs, made of the few fonts that come with matplotlib under names that put them into each split."""

import dataclasses
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image, ImageFont

from maxsup import cli
from maxsup.lab.data import DataError, load
from maxsup.lab.data.glyphs import stored
from maxsup.lab.data.glyphs.choosing import check, choose, legibility
from maxsup.lab.data.glyphs.drawing import draw
from maxsup.lab.data.glyphs.fonts import FontError, font_files, package_of, read_font, split_of, typeface
from maxsup.lab.data.glyphs.making import make_glyphs
from maxsup.lab.data.glyphs.sets import BASE, GLYPH_SETS, GlyphSet
from maxsup.lab.data.glyphs.stored import load_glyphs, read_glyphs, write_glyphs
from maxsup.lab.recipes import Data

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FURTHER = "éЖΩ"
# The first made-up names that fall into each split.
NAMES = {
    split: next(
        name for name in map("Family{}".format, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") if split_of(typeface(name)) == split
    )
    for split in ("train", "validation", "test")
}


def write_font(path, source, family, style="Regular", text=BASE + FURTHER, glyph_of=None):
    """A font with `text`'s characters of a DejaVu file, renamed; `glyph_of` says whose glyph a character gets."""
    with TTFont(DEJAVU / f"{source}.ttf") as font:
        options = subset.Options(hinting=False, layout_features=[], notdef_outline=True)
        smaller = subset.Subsetter(options)
        smaller.populate(text=text)
        smaller.subset(font)
        for number, name in ((1, family), (2, style), (13, "A licence")):
            font["name"].setName(name, number, 3, 1, 0x409)
        for number in (16, 17):
            font["name"].removeNames(nameID=number)
        if glyph_of:
            for table in font["cmap"].tables:
                table.cmap = {code: table.cmap[ord(glyph_of(chr(code)))] for code in table.cmap}
        font.save(path)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    """Serving fonts of each split, and for each reason to leave one out one such font."""
    folder = tmp_path_factory.mktemp("fonts")
    for style, end in (("Regular", ""), ("Bold", "-Bold"), ("Oblique", "-Oblique"), ("Bold Oblique", "-BoldOblique")):
        write_font(folder / f"sans{end}.ttf", f"DejaVuSans{end}", NAMES["train"], style)
    write_font(folder / "serif.ttf", "DejaVuSerif", NAMES["validation"])
    write_font(folder / "mono.ttf", "DejaVuSansMono", NAMES["test"])
    write_font(folder / "copy.ttf", "DejaVuSerif", "ZFamily")
    write_font(folder / "lacking.ttf", "DejaVuSans", "Lacking", text="ABC")
    write_font(
        folder / "capitals.ttf", "DejaVuSans-Bold", "Capitals", glyph_of=lambda c: c.upper() if c in "abdeghnqrt" else c
    )
    write_font(folder / "boxes.ttf", "DejaVuSans", "Boxes", glyph_of=lambda c: "I")
    # Each character drawn as the one that comes 20 later.
    write_font(
        folder / "symbols.ttf",
        "DejaVuSans",
        "Symbols",
        glyph_of=lambda c: BASE[(BASE.index(c) + 20) % 62] if c in BASE else c,
    )
    (folder / "broken.ttf").write_bytes(b"no font")
    (folder / "notes.txt").write_text("no font either")
    return folder


@pytest.fixture(scope="module")
def made(fonts):
    return make_glyphs(GLYPH_SETS["glyphs"], fonts)


def test_each_typeface_is_in_the_split_that_its_name_says(made):
    found = {font["file"]: font["split"] for font in made.manifest["fonts"]}
    assert found == {
        "sans.ttf": "train",
        "sans-Bold.ttf": "train",
        "sans-Oblique.ttf": "train",
        "serif.ttf": "validation",
        "mono.ttf": "test",
    }
    assert [int(made.in_split(split).sum()) for split in NAMES] == [3 * 62, 62, 62]


def test_every_other_font_is_named_with_the_reason(made):
    reasons = {font["file"]: font["reason"] for font in made.manifest["dropped"]}
    assert reasons["sans-BoldOblique.ttf"] == "more than 3 files of the typeface"
    assert reasons["copy.ttf"] == f"copy (draws as {NAMES['validation']} Regular, correlation 1.00)"
    assert reasons["lacking.ttf"] == "incomplete (lacks 59 of the letters and digits)"
    assert reasons["capitals.ttf"] == "capitals for small letters (correlation 1.00)"
    assert reasons["boxes.ttf"] == "repeated glyphs (1 different ones of 62)"
    assert reasons["symbols.ttf"].startswith("symbols or decoration (")
    assert reasons["broken.ttf"] == "unreadable (TTLibError)"
    assert len(reasons) == 7


def test_shares_of_the_splits_are_those_promised():
    splits = [split_of(f"typeface {i}") for i in range(2000)]
    # Three standard deviations of a binomial of 2,000 at most.
    assert splits.count("train") / 2000 == pytest.approx(0.60, abs=0.033)
    assert splits.count("validation") / 2000 == pytest.approx(0.15, abs=0.024)
    assert splits.count("test") / 2000 == pytest.approx(0.25, abs=0.029)


def test_the_split_is_the_hash_of_the_name_by_hand():
    # sha256("dejavu sans") begins with 7c, so that its place in 0..1 is a little below a half.
    import hashlib

    place = hashlib.sha256(b"dejavu sans").digest()[0] / 256
    assert split_of("dejavu sans") == ("train" if place < 0.6 else "validation" if place < 0.75 else "test")


def test_hash_is_stable_and_tells_a_pixel_and_a_label(made, fonts):
    assert made.manifest["hash"] == made.content_hash() == make_glyphs(GLYPH_SETS["glyphs"], fonts).content_hash()
    for field in ("images", "labels"):
        changed = getattr(made, field).copy()
        changed.flat[-1] ^= 1
        assert dataclasses.replace(made, **{field: changed}).content_hash() != made.content_hash()


def test_more_fonts_do_not_move_those_that_were_there(made, fonts, tmp_path):
    for path in fonts.iterdir():
        (tmp_path / path.name).symlink_to(path)
    write_font(tmp_path / "another.ttf", "DejaVuSerif-Bold", "Another")
    more = make_glyphs(GLYPH_SETS["glyphs"], tmp_path)
    splits = {font["file"]: font["split"] for font in more.manifest["fonts"]}
    assert splits.items() > {font["file"]: font["split"] for font in made.manifest["fonts"]}.items()


def test_images_are_the_glyphs_scaled_into_the_margins(made):
    filled = made.images > 0
    rows, columns = filled.any(axis=2).sum(axis=1), filled.any(axis=1).sum(axis=1)
    # The filter that shrinks may leave a faint outermost row or column on either side at 0.
    assert set(np.maximum(rows, columns).tolist()) <= {24, 25, 26}
    assert not filled[:, :3].any()
    assert not filled[:, -3:].any()
    # The same letter drawn by Pillow alone at the size that makes its capital 26 pixels tall.
    h = made.images[BASE.index("H")] / 255
    plain = Image.new("L", (32, 32))
    from PIL import ImageDraw

    font = ImageFont.truetype(str(DEJAVU / "DejaVuSans.ttf"), 26 / 0.729)
    ImageDraw.Draw(plain).text((16, 16), "H", fill=255, font=font, anchor="mm")
    assert np.corrcoef(h.ravel(), np.asarray(plain).ravel())[0, 1] > 0.8


def test_beyond_letters_and_digits_placeholders_and_undrawn_accents_are_left_out(tmp_path):
    for split, source in zip(NAMES, ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono"), strict=True):
        write_font(tmp_path / f"{split}.ttf", source, NAMES[split])
    flat = GlyphSet("flat", BASE + FURTHER, 0.9)
    glyphs = make_glyphs(flat, tmp_path)
    assert glyphs.labels.tolist() == 3 * list(range(65))
    write_font(tmp_path / "more.ttf", "DejaVuSerif-Bold", "More", glyph_of=lambda c: "e" if c == "é" else c)
    write_font(tmp_path / "fewer.ttf", "DejaVuSansMono-Bold", "Fewer", text=BASE + "éΩ")
    counts = {font["file"]: font["images"] for font in make_glyphs(flat, tmp_path).manifest["fonts"]}
    assert counts == {"train.ttf": 65, "validation.ttf": 65, "test.ttf": 65, "more.ttf": 64, "fewer.ttf": 64}
    strict = make_glyphs(GlyphSet("flat", BASE + FURTHER, 1.0), tmp_path)
    assert {
        "file": "fewer.ttf",
        "reason": "incomplete (draws 98% of the classes, where 100% are needed)",
    } in strict.manifest["dropped"]


def test_too_few_fonts_are_an_error_that_says_what_is_missing(fonts, tmp_path):
    with pytest.raises(
        DataError, match=r"glyphs: none of 0 font files serves \(there are none\); more fonts are needed"
    ):
        make_glyphs(GLYPH_SETS["glyphs"], tmp_path)
    (tmp_path / "sans.ttf").symlink_to(fonts / "sans.ttf")
    with pytest.raises(DataError, match="of these the validation split has 0 of 62 classes"):
        make_glyphs(GLYPH_SETS["glyphs"], tmp_path)


def test_the_set_is_loaded_as_it_was_made(made, tmp_path):
    write_glyphs(tmp_path / "glyphs.npz", made)
    again = read_glyphs(tmp_path / "glyphs.npz")
    assert again.manifest == made.manifest
    loaded = load(Data(name="glyphs"), tmp_path)
    assert loaded.class_names == tuple(BASE)
    assert [len(split) for split in (loaded.train, loaded.validation, loaded.test)] == [186, 62, 62]
    assert torch.equal(loaded.test.images[:, 0], torch.from_numpy(made.images[made.in_split("test")]))
    assert loaded.test.labels.tolist() == list(range(62))
    assert load_glyphs(tmp_path, 64).test.images.shape == (62, 1, 64, 64)


def test_a_damaged_or_missing_set_is_an_error_that_says_what_to_do(made, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "CACHE", tmp_path / "cache")
    with pytest.raises(
        DataError, match=r"glyphs-large: no glyphs-large\.npz in --data-dir .* `maxsup data make glyphs-large`"
    ):
        load(Data(name="glyphs-large"), tmp_path)
    path = tmp_path / "glyphs.npz"
    changed = dataclasses.replace(made, images=made.images[:, ::-1].copy())
    write_glyphs(path, changed)
    with pytest.raises(DataError, match=r"glyphs\.npz: the content's hash is \w+, where the manifest says"):
        load(Data(name="glyphs"), tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"glyphs\.npz: no readable set of glyphs \(BadZipFile"):
        load(Data(name="glyphs"), tmp_path)
    write_glyphs(tmp_path / "glyphs-large.npz", made)
    with pytest.raises(DataError, match="its classes are not those of glyphs-large"):
        load(Data(name="glyphs-large"), tmp_path)


def test_copies_are_told_by_correlation_and_three_files_a_typeface_are_taken():
    random = np.random.default_rng(0)
    first, *others = random.integers(0, 256, (5, 62, 32, 32), dtype=np.uint8)
    faint = first // 2  # the same drawing, grey
    images = [first, faint, *others]
    reasons = choose(["a", "b", "c", "c", "c", "c"], [f"font {i}" for i in range(6)], images)
    assert reasons == [
        None,
        "copy (draws as font 0, correlation 1.00)",
        None,
        None,
        None,
        "more than 3 files of the typeface",
    ]


def test_a_font_that_borrows_more_than_three_glyphs_is_a_copy():
    random = np.random.default_rng(0)
    first, three, four = random.integers(0, 256, (3, 62, 32, 32), dtype=np.uint8)
    three[:3], four[10:14] = first[:3], first[10:14]
    reasons = choose(["a", "b", "c"], ["first", "three", "four"], [first, three, four])
    assert reasons == [None, None, "copy (repeats 4 glyphs of fonts taken before)"]


def test_dejavu_looks_like_itself_and_upside_down_it_does_not():
    images = draw(DEJAVU / "DejaVuSansMono.ttf", BASE)
    assert legibility(images) == 1.0
    assert legibility(images[::-1]) < 0.2
    check(images)
    with pytest.raises(FontError, match=r"empty glyphs \(0\)"):
        check(np.concatenate([np.zeros((1, 32, 32), np.uint8), images[1:]]))


def test_a_font_says_what_it_is(fonts):
    font = read_font(fonts / "sans-Bold.ttf")
    assert (font.family, font.style, font.licence) == (NAMES["train"], "Bold", "A licence")
    assert font.characters == set(BASE + FURTHER)
    assert font.order < read_font(fonts / "sans-Oblique.ttf").order
    assert [path.name for path in font_files(fonts)] == sorted(path.name for path in fonts.glob("*.ttf"))


def test_the_package_is_that_of_the_folder_which_it_was_unpacked_into(tmp_path, fonts):
    copyrights = tmp_path / "fonts-some" / "usr" / "share" / "doc" / "fonts-some" / "copyright"
    copyrights.parent.mkdir(parents=True)
    copyrights.write_text("Files: *\nCopyright: 2020 A\nLicense: OFL-1.1\n\nFiles: debian/*\nLicense: GPL-2+\n")
    for split, source in zip(NAMES, ("sans", "serif", "mono"), strict=True):
        (tmp_path / "fonts-some" / f"{split}.ttf").write_bytes((fonts / f"{source}.ttf").read_bytes())
    assert package_of(tmp_path / "fonts-some" / "train.ttf") == ("fonts-some", copyrights)
    (entry, *_) = make_glyphs(GLYPH_SETS["glyphs"], tmp_path).manifest["fonts"]
    assert (entry["package"], entry["licence"]) == ("fonts-some", "OFL-1.1")


def test_large_classes_are_different_letters_that_begin_with_the_small_set():
    large = GLYPH_SETS["glyphs-large"].characters
    assert len(large) == len(set(large)) == 447
    assert large.startswith(BASE)
    assert all(character.isalnum() for character in large)


def test_make_and_show_from_the_command_line(fonts, tmp_path, capsys, monkeypatch):
    assert cli.main(["data", "make", "glyphs", "--fonts", str(fonts), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "train: 186 images of 3 fonts of 1 typefaces\n" in out
    assert "left out: 7 font files\n      1 " in out
    assert "      1 symbols or decoration\n" in out
    manifest = json.loads((tmp_path / "glyphs.json").read_text())
    assert f"hash: {manifest['hash']}\n" in out
    png = tmp_path / "sheet.png"
    arguments = ["data", "show", "glyphs", "--data-dir", str(tmp_path), "--out", str(png), "--per-class", "3"]
    assert cli.main(arguments) == 0
    sheet = np.asarray(Image.open(png))
    assert sheet.shape == (62 * 34, 96 + 3 * 34, 3)
    # Row 1, column 2 is the second class in the third of the training fonts.
    train = load(Data(name="glyphs"), tmp_path).train
    third = train.images[(train.labels == 1).nonzero()[2, 0], 0].numpy()
    assert (sheet[34 : 34 + 32, 96 + 68 : 96 + 68 + 32] == third[:, :, None]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data"], "`maxsup data` takes make or show"),
        (["data", "make", "glyph"], "unknown set of glyphs 'glyph'; did you mean glyphs"),
        (["data", "show", "digit", "--out", "x.png"], "unknown data set 'digit'; did you mean digits"),
        (["data", "show", "digits", "--out", "x.png", "--per-class", "0"], "per_class must be at least 1, got 0"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
