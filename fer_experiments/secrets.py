"""Passwords, tokens and keys, kept out of everything that is printed or stored.

A secret is known by its form (a password in a URI, `token=…`, a key of a known service) or by its
value: that of an environment variable or of a credentials file whose name says what it holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

# What stands in the place of one; bandit takes it for one.
SECRET = "[secret]"  # nosec B105
_SHORTEST = 6  # characters; a shorter value would blot out ordinary words
_WORDS = ("token", "secret", "password", "passwd", "passphrase", "credential", "key")

# `://user:password@`; a password may hold "/" where SQLAlchemy reads it, a port may not be one.
# Lengths are bounded everywhere: a text made for it would otherwise take minutes.
_USER_INFO = re.compile(
    r'(?<=://)(?:[^\s/"<>]{0,500}@|[^\s/@:"<>]{0,200}:(?!\d{0,9}/)[^\s@"<>]{0,300}@)'
)
# MLflow's links to saved views say `viewStateShareKey=`, which opens nothing by itself.
_ASSIGNED = re.compile(
    r"((?:token|secret|passw(?:or)?d|passphrase|_pwd|signature|credential|key|key_?id|"
    r"(?<![a-z])sig)s?(?:=|%3d))(?<!viewStateShareKey=)(?!\[secret\])(?:\"[^\"]{0,2000}\"|'[^']{0,2000}'|[^\s&'\"<>]+)",
    re.IGNORECASE,
)
_IN_JSON = re.compile(
    r"([\"'][\w.-]{0,40}(?:token|secret|passw(?:or)?d|api_?key|access_?key)[\"']\s*:\s*)"
    r"(\"[^\"]{0,2000}\"|'[^']{0,2000}')",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\bbearer\s+)[^\s'\"]{8,}", re.IGNORECASE
)
# GitHub, GitLab, AWS, Hugging Face, Slack, Kaggle
_KNOWN_FORMS = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|hf_\w{20,}|xox[abpr]-[\w-]{10,}|KGAT_\w{16,})"
)
_IN_FILE = re.compile(
    rf"[\"']?\b[\w-]*(?:{'|'.join(_WORDS)})[\"']?\s*[:=\s]\s*[\"']?([^\s\"',}}]+)", re.IGNORECASE
)


def redact(text: str) -> str:
    """The text without secrets; `[secret]` stands in their place, user info of URIs is gone."""
    for value in _known_values():
        if value in text:
            text = text.replace(value, SECRET)
    text = _USER_INFO.sub("", text)
    text = _ASSIGNED.sub(rf"\1{SECRET}", text)
    text = _IN_JSON.sub(rf'\1"{SECRET}"', text)
    text = _HEADER.sub(rf"\1{SECRET}", text)
    return _KNOWN_FORMS.sub(SECRET, text)


def holds_secret(text: str) -> bool:
    """Whether `redact` would change it."""
    return redact(text) != text


def _known_values() -> list[str]:
    """Every spelling of what this process could give away, the longest first."""
    values = set(_in_environment()) | set(_in_files())
    spelled = {spelling for value in values for spelling in _spellings(value)}
    return sorted(spelled, key=len, reverse=True)


def _in_environment() -> Iterator[str]:
    # A copy of the names: other libraries' threads set and remove variables meanwhile.
    for name in list(os.environ):
        value = os.environ.get(name, "")
        # The name of a file with credentials is none.
        if _says_secret(name) and not (value.startswith("/") and Path(value).exists()):
            yield value
        yield from _passwords(value)


@lru_cache(maxsize=1024)
def _says_secret(name: str) -> bool:
    """Whether a variable's name says so: KAGGLE_KEY, PGPASSWORD; not TOKENIZERS_PARALLELISM."""
    words = [word.rstrip("s") for word in re.split(r"[^a-z0-9]+", name.lower())]
    return any(word.endswith(_WORDS) for word in words) or name.upper().endswith("_PWD")


@lru_cache(maxsize=1024)
def _passwords(text: str) -> tuple[str, ...]:
    """What a URI or a connection string holds: messages quote the password alone."""
    found = re.findall(r"://[^\s/@:]{0,200}:(?!\d{0,9}/)([^\s@]{1,300})@", text)
    found += re.findall(r"(?i)(?:key|password|pwd|signature|secret|token)=([^\s;&]{6,})", text)
    return (*found, *map(unquote, found))


def _in_files() -> Iterator[str]:
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() fails where there is none
    kaggle = Path(os.environ.get("KAGGLE_CONFIG_DIR") or home / ".kaggle")
    for path in (
        kaggle / "kaggle.json",
        kaggle / "access_token",
        home / ".mlflow" / "credentials",
        home / ".aws" / "credentials",
        home / ".netrc",
    ):
        try:
            stat = path.stat()
        except (OSError, ValueError):
            continue
        yield from _in_file(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _in_file(path: Path, changed: int, size: int) -> tuple[str, ...]:
    """Values behind names that say so; `changed` and `size` make a new version be read again."""
    if size > 2**16:
        return ()
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ()
    return (text.strip(),) if path.name == "access_token" else tuple(_IN_FILE.findall(text))


@lru_cache(maxsize=1024)
def _spellings(value: str) -> tuple[str, ...]:
    """The value as it may stand in plain text, JSON, a URI or Python's repr."""
    value = value.strip()
    parts = {value, *(line.strip() for line in value.splitlines() if len(line) >= 12)}
    found: set[str] = set()
    for part in parts:
        if len(part) >= _SHORTEST:
            raw = part.encode("utf-8", "surrogateescape")
            found |= {part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
            found |= {quote(raw), quote(raw, safe=""), quote_plus(raw), repr(part)[1:-1]}
    return tuple(found)
