"""What contributors are told is what the tools do."""

from __future__ import annotations

import re
import shlex
import tomllib

import yaml

from fer_experiments import __version__

from .conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_hooks_are_the_commands_of_make_check() -> None:
    target = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    commands = [
        shlex.split(line.replace("$(BIN)", ".venv/bin")) for line in target.splitlines()[1:]
    ]
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [shlex.split(hook["entry"]) for hook in repository["hooks"]] == commands
    assert all(hook["pass_filenames"] is False for hook in repository["hooks"])


def test_the_workflow_checks_and_tests_on_every_python_that_is_allowed() -> None:
    [job] = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    low, high = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    assert versions == [f"3.{minor}" for minor in range(int(low), int(high))]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make check", "make test"]


def test_one_version_stands_everywhere() -> None:
    assert PROJECT["project"]["version"] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[:2] == ["Unreleased", __version__]


def test_the_guide_names_files_that_exist() -> None:
    named = set(re.findall(r"`([\w./]+(?:\.py|\.md|/))`", GUIDE))
    named = {path for path in named if "NAME" not in path}
    inside = ROOT / "fer_experiments"
    places = [ROOT, inside / "reporting", inside / "stages"]
    assert len(named) > 15
    assert not [path for path in named if not any((place / path).exists() for place in places)]


def test_the_guide_links_to_pages_that_exist() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert len(linked) >= 4
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_guide_names_what_stands_in_those_files() -> None:
    for line in GUIDE.splitlines():
        if not (line.startswith("| `") and ".py`" in line and "NAME.py" not in line):
            continue
        files, told = line.split("|")[1:3]
        texts = [
            (ROOT / path).read_text()
            for path in re.findall(r"`([\w/]+\.py)`", files)
            if (ROOT / path).exists()
        ]
        for name in re.findall(r"`([A-Z_]{5,}|_draw|drawn)", told):
            assert any(re.search(rf"\b{name}\b", text) for text in texts), (name, files)


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "fer_experiments/py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["fer_experiments"]
