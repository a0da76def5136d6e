import re
import shutil
import subprocess
from base64 import b64decode
from html import escape
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from fer_experiments.reporting.html import Model, Section, page
from fer_experiments.reporting.tables import Link

RUN = Link(text="1a2b3c4d", address="http://127.0.0.1:5000/#/experiments/1/runs/1a2b3c4d?a=1&b=2")
EVIL = '<script>alert("1")</script> & "quoted" \'too\''


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def whole(self):
        """All text, words that are marked for wrapping put together again."""
        return "".join(self.text)

    @property
    def names(self):
        """The tags, without those by which words wrap."""
        return [name for name, _ in self.found if name not in ("span", "wbr")]


def made_up_page(name="angry"):
    section = Section(
        heading=f"Scores of {name}",
        text=f"About {name}.\n\nMore.",
        points=[f"{name} taken for sad"],
        columns=["class", Model(label=f"F1 of {name}", colour="#0072B2")],
        rows=[[name, 0.5], ["all", "0.500 [0.4, 0.6]"], ["run", RUN]],
        figures={f"curves of {name}": Figure((2, 1)), "stored": b"\x89PNG..."},
    )
    sections = [section, Section(heading="empty")]
    return page(f"Report on {name}", f"What {name} is.", sections, lead=f"{name} first.")


def test_a_page_holds_all_texts_tables_and_pictures():
    tags = Tags(made_up_page())
    assert not tags.open
    names = [name for name, _ in tags.found]
    assert names.count("p") == 4
    assert (names.count("li"), names.count("tr"), names.count("table")) == (1, 4, 1)
    assert tags.whole.index("angry first.") < tags.whole.index("What angry is.")
    for text in ("What angry is.", "More.", "0.500 [0.4, 0.6]", "F1 of angry"):
        assert text in tags.whole
    pictures = [attrs for name, attrs in tags.found if name == "img"]
    assert [picture["alt"] for picture in pictures] == ["curves of angry", "stored"]
    stored = [
        b64decode(picture["src"].removeprefix("data:image/png;base64,")) for picture in pictures
    ]
    assert stored[0].startswith(b"\x89PNG\r\n")
    assert stored[1] == b"\x89PNG..."


def test_names_from_the_data_are_escaped_everywhere():
    plain, evil = Tags(made_up_page()), Tags(made_up_page(EVIL))
    assert evil.names == plain.names
    assert "script" not in [name for name, _ in evil.found]
    assert f"curves of {EVIL}" in [attrs.get("alt") for _, attrs in evil.found]
    assert evil.whole.count(EVIL) == 10


def test_nothing_is_loaded_and_no_script_runs():
    text = made_up_page()
    found = Tags(text).found
    # A link loads nothing until somebody follows it.
    assert [(tag, attrs["href"]) for tag, attrs in found if "href" in attrs] == [("a", RUN.address)]
    loads = re.sub(r'base64,[^"]*|<a href="[^"]*"', "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", loads)
    assert all(not key.startswith("on") and key != "srcset" for _, attrs in found for key in attrs)
    sources = [attrs["src"] for _, attrs in Tags(text).found if "src" in attrs]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "default-src 'none'" in text


def test_the_same_content_gives_the_same_page():
    assert made_up_page() == made_up_page()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = """<script>
const wide = [...document.querySelectorAll(".wide:has(table)"), document.documentElement];
document.title = wide.map(e => e.scrollWidth - e.clientWidth).join(" ");
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no browser")
@pytest.mark.parametrize("width", [1280, 390])
def test_tables_of_eight_models_need_no_scrolling_sideways(width, tmp_path):
    labels = [f"resnet50 finetune baseline s{n} 1a2b3{n}" for n in range(8)]
    models = [Model(label=label, colour="#0072B2") for label in labels]
    scores = [
        [head, *["100.0% (99.9%–100.0%)*"] * 8] for head in ("test leak-free accuracy", "test ECE")
    ]
    settings = [["dataset", *["/home/somebody/data/fer2013-with-a-long-name/archive.zip"] * 8]]
    pairs = [[labels[0], labels[1], "3,589", *["+0.1234"] * 8, "no image is left of disgust"]]
    sections = [
        Section(heading="Models", columns=["score", *models], rows=scores),
        Section(heading="Settings", columns=["setting", *models], rows=settings),
        Section(heading="Classes", columns=["class", "images", "judging", *models],
                rows=[["surprise", "416", "400", *["0.123"] * 8]]),
        Section(heading="Pairs", rows=pairs, columns=[
            "first", "second", "images", "macro-F1 difference", "low", "high", "p",
            "accuracy difference", "accuracy low", "accuracy high", "accuracy p", "why",
        ]),
    ]  # fmt: skip
    # A script may measure the page only where its own rule against scripts is gone.
    text = re.sub(r"<meta http-equiv[^>]*>", "", page("t", "i", sections, lead="A leads."))
    file = tmp_path / "page.html"
    # A window may not be as narrow as a phone; a frame may.
    frame = (
        f'<iframe style="border: 0" width="{width}" height="900" srcdoc="{escape(text + MEASURE)}">'
    )
    read = """<script>
    const inner = frames[0];
    onload = () => { document.body.innerText = inner.document.title + " px " + inner.innerWidth; };
    </script>"""
    file.write_text(
        f"<!DOCTYPE html><body style='margin: 0'>{frame}</iframe>{read}", encoding="utf-8"
    )
    assert CHROMIUM is not None
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
         "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert re.search(rf"0 0 0 0 0 px {width}", shown), shown[:500]
