import re
from base64 import b64decode
from html.parser import HTMLParser

from matplotlib.figure import Figure

from fer_experiments.reporting.html import Section, page

EVIL = '<script>alert("1")</script> & "quoted" \'too\''


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def made_up_page(name="angry"):
    section = Section(
        heading=f"Scores of {name}",
        text=f"About {name}.\n\nMore.",
        points=[f"{name} taken for sad"],
        columns=["class", f"F1 of {name}"],
        rows=[[name, 0.5], ["all", "0.500 [0.4, 0.6]"]],
        figures={f"curves of {name}": Figure((2, 1)), "stored": b"\x89PNG..."},
    )
    return page(f"Report on {name}", f"What {name} is.", [section, Section(heading="empty")])


def test_a_page_holds_all_texts_tables_and_pictures():
    tags = Tags(made_up_page())
    assert not tags.open
    names = [name for name, _ in tags.found]
    assert names.count("p") == 3
    assert (names.count("li"), names.count("tr"), names.count("table")) == (1, 3, 1)
    assert {"What angry is.", "More.", "0.500 [0.4, 0.6]", "F1 of angry"} <= set(tags.text)
    pictures = [attrs for name, attrs in tags.found if name == "img"]
    assert [picture["alt"] for picture in pictures] == ["curves of angry", "stored"]
    stored = [
        b64decode(picture["src"].removeprefix("data:image/png;base64,")) for picture in pictures
    ]
    assert stored[0].startswith(b"\x89PNG\r\n")
    assert stored[1] == b"\x89PNG..."


def test_names_from_the_data_are_escaped_everywhere():
    plain, evil = Tags(made_up_page()), Tags(made_up_page(EVIL))
    assert [name for name, _ in evil.found] == [name for name, _ in plain.found]
    assert "script" not in [name for name, _ in evil.found]
    assert f"curves of {EVIL}" in [attrs.get("alt") for _, attrs in evil.found]
    assert sum(EVIL in text for text in evil.text) == 9


def test_nothing_is_loaded_and_no_script_runs():
    text = made_up_page()
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert all(
        not key.startswith("on") and key not in ("href", "srcset")
        for _, attrs in Tags(text).found
        for key in attrs
    )
    sources = [attrs["src"] for _, attrs in Tags(text).found if "src" in attrs]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "default-src 'none'" in text


def test_the_same_content_gives_the_same_page():
    assert made_up_page() == made_up_page()
