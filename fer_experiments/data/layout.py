"""Which folder means what: the parts, the classes, and what is left out of a listing of files.

A *part* is a folder whose name says train, val or test, anywhere below the root, above or below
the class; the root's own name never counts. The *class* is the first level of folders below root
or part that is no pass-through: the only folder of its parent, in every part, without images of
its own. Deeper folders belong to it. Where a deeper level could be the classes just as well, or
a name says two things, it is refused: nothing is guessed.

Pure functions of relative posix paths; nothing is opened.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path

from fer_experiments.config import is_text
from fer_experiments.data.files import (
    IMAGE_SUFFIXES,
    UNREAD_IMAGE_SUFFIXES,
    as_text,
    is_junk,
    suffix_of,
)
from fer_experiments.errors import DataError, quote

PARTS = ("train", "val", "test")
# FER-2013's own names of its parts, in its CSV's column, its files' and some people's folders.
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_WORDS = {
    "train": ("train", "training", "trainset", "trainval"),
    "val": ("val", "valid", "validation", "validate", "validset", "valset", "dev", "devset"),
    "test": ("test", "tests", "testing", "testset"),
}
_SAYS = {word: part for part, words in _WORDS.items() for word in words}
# A file as FER-2013 has it on Kaggle.
OFFICIAL_FILE = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
# A class's name is part of the names of its scores, of which MLflow stores 250 characters.
_LONGEST_CLASS = 100
_ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})
_EXAMPLES = 3

_Names = tuple[str, ...]  # of the folders on the way to a file, the root's not among them


@dataclass(frozen=True)
class Placed:
    """One image and what its place says of it."""

    path: str  # posix, relative to the root; of a CSV: usage and row
    part: str  # train, val or test
    label: str  # name of its class


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that are not used, and why."""

    kind: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        some = ", ".join(quote(as_text(example)) for example in self.examples)
        return (
            f"{self.count} {self.kind} ({some}{', …' if self.count > len(self.examples) else ''})"
        )


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a listing was taken to mean."""

    files: tuple[Placed, ...]
    class_names: tuple[str, ...]  # sorted
    level: int | None = None  # of the class folders below root or part, from 1; None: no folders
    passed: tuple[str, ...] = ()  # the pass-through folders above the classes
    left_out: tuple[LeftOut, ...] = ()
    junk: LeftOut | None = None
    table: str | None = None  # the CSV in a folder or archive, where that is what is read
    dropped: tuple[str, ...] = ()  # class folders without images that on_empty_class=drop left out

    @property
    def policy(self) -> str:
        """What split=auto means here: official, given or holdout."""
        return policy((f.part, f.path) for f in self.files)

    @cached_property
    def counts(self) -> dict[str, Counter[str]]:
        """Images by part, then by class; parts without images are not there."""
        return _counted(self.files)

    def counts_with(self, split: str) -> dict[str, Counter[str]]:
        """`counts`, with PublicTest as val and PrivateTest as test where the split is official."""
        if split != "official":
            return self.counts
        return _counted(
            replace(file, part=USAGES[usage(file.path) or "Training"])
            if file.part != "train"
            else file
            for file in self.files
        )

    def lines(self, split: str) -> list[str]:
        """The reading in words: class names with counts by part, what is left out, what is junk."""
        counts = self.counts_with(split)
        parts = list(counts)
        width = max(len(quote(name)) for name in (*self.class_names, "class", "all"))
        rows = [["class", *parts]]
        rows += [
            [quote(name), *(str(counts[part][name]) for part in parts)] for name in self.class_names
        ]
        rows.append(["all", *(str(counts[part].total()) for part in parts)])
        lines = [f"  {row[0]:<{width}}" + "".join(f"{cell:>8}" for cell in row[1:]) for row in rows]
        if self.table:
            lines.append(f"read from: {quote(as_text(self.table), 200)}")
        if self.passed:
            lines.append(f"passed through: {' / '.join(map(quote, self.passed))}")
        lines += [f"left out: {what}" for what in self.not_used()]
        if self.junk:
            lines.append(f"skipped: {self.junk}")
        return lines

    def not_used(self) -> list[str]:
        """What is left out, in words: classes without images, files by kind."""
        dropped = [f"the class {quote(as_text(name))}, without images" for name in self.dropped]
        return [*dropped, *map(str, self.left_out)]


def _counted(files: Iterable[Placed]) -> dict[str, Counter[str]]:
    found = {part: Counter[str]() for part in PARTS}
    for file in files:
        found[file.part][file.label] += 1
    return {part: counts for part, counts in found.items() if counts}


def policy(images: Iterable[tuple[str, str]]) -> str:
    """What split=auto means for images of these parts and paths.

    `official` where FER-2013's usage names tell PublicTest from PrivateTest, `given` where there
    are val or test images, else `holdout`.
    """
    held_out = {(part, usage(path)) for part, path in images if part != "train"}
    if not held_out:
        return "holdout"
    names = {name for _, name in held_out}
    named = "PublicTest" in names and names <= {"PublicTest", "PrivateTest"}
    # Kaggle keeps both in test; where there is a val part, too, it must hold what its files say.
    apart = all(part == USAGES[name] for part, name in held_out if name in USAGES)
    in_test = {part for part, _ in held_out} == {"test"}
    return "official" if named and (apart or in_test) else "given"


def usage(path: str) -> str | None:
    """FER-2013's name for the part of an image, by its file's name or that of a folder."""
    *folders, name = names_in(path)
    for found in USAGES:
        if name.startswith(found):
            return found
    for folder in reversed(folders):
        for found in USAGES:
            if _letters(folder) == found.lower():
                return found
    return None


def names_in(path: str) -> list[str]:
    """The names in a posix path, without the `.` of `./train/angry/1.jpg`."""
    return [name for name in path.split("/") if name not in ("", ".")]


@lru_cache(maxsize=10_000)
def part_of(name: str) -> str | None:
    """The part that a folder's name says: by a word in it, in any case.

    `Train`, `my_validation-set`, `testSet2`, FER-2013's `PublicTest` (val) and `PrivateTest`,
    FER+'s `FER2013Valid`. A name that says two parts, as `train_test_split`, says none, but
    `train_val` is what validation has not been taken from yet.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", spaced)]
    if _letters(name) == "publictest" or {"public", "test"} <= set(words):
        return "val"
    if _letters(name) == "privatetest" or {"private", "test"} <= set(words):
        return "test"
    said = {_SAYS[word] for word in words if word in _SAYS}
    if said == {"train", "val"}:
        return "train"
    return said.pop() if len(said) == 1 else None


def read(
    files: Iterable[str],
    empty_folders: Iterable[str] = (),
    *,
    where: Path,
    class_level: int | None = None,
    on_empty_class: str = "refuse",
) -> Reading:
    """Reads a listing.

    Args:
        files: relative posix paths.
        empty_folders: folders below which there is no file.
        where: the root, for messages; a folder of its name that holds everything, as zips have it,
            says no part either.
        class_level: the level of folders below root or part that are the classes, from 1, part
            folders not counted; None: told by the rule.
        on_empty_class: refuse, or drop class folders that have no image in any part.

    Raises:
        DataError: no class folders, two ways to read them, one class only, a class that train
            lacks or that has no images, a path that names two parts.
    """
    listing = _Listing(files, empty_folders)
    tree = _Tree(listing, where)
    if not tree.deepest:
        raise DataError(_no_classes(listing, where))
    if class_level is not None and class_level > tree.deepest:
        raise DataError(
            f"Expected class_level of at most {tree.deepest}, as deep as folders with images lie "
            f"in {where}. Received: class_level={class_level}"
        )
    level = tree.class_level() if class_level is None else class_level - 1
    placed = tree.placed(level)
    tree.refuse_outside(placed)
    class_names = _class_names(placed, where)
    empty = tree.without_images(level, class_names)
    if empty and on_empty_class == "refuse":
        raise DataError(
            f"Expected images in every class folder of {where}. Found: none in {_listed(empty)}; "
            "pass on_empty_class=drop to leave them out"
        )
    return Reading(
        files=tuple(placed),
        class_names=class_names,
        level=level + 1,
        passed=tree.passed(level),
        left_out=(*tree.left_out(level), *listing.left_out()),
        junk=listing.junk(),
        dropped=tuple(sorted(empty)),
    )


def has_folders(files: Iterable[str]) -> bool:
    """Whether images lie in folders; none of the files is junk."""
    return any(
        suffix_of(name) in IMAGE_SUFFIXES
        for path in files
        for *above, name in [names_in(path)]
        if above
    )


def left_out(files: Iterable[str]) -> tuple[LeftOut, ...]:
    """Files by kind, where none of them is used."""
    listing = _Listing(files, ())
    images = [path for _, path in listing.images]
    return (*([_left_out("images", images)] if images else []), *listing.left_out())


class _Listing:
    """The paths, sorted out by what the files' names say of their kind."""

    def __init__(self, files: Iterable[str], empty_folders: Iterable[str]) -> None:
        self.images: list[tuple[_Names, str]] = []  # folders on the way, path
        self.others: defaultdict[str, list[str]] = defaultdict(list)  # by suffix
        self._junk: dict[str, None] = {}
        self.empty: set[_Names] = set()  # folders meant for images, for all one can tell
        self.with_others: set[_Names] = set()  # folders that hold files that are no images
        for path in files:
            names = self._names(path)
            if not names:
                continue
            folders = tuple(names[:-1])
            suffix = suffix_of(names[-1])
            if suffix in IMAGE_SUFFIXES or (not suffix and folders):
                self.images.append((folders, path))
            else:
                self.others[suffix].append(path)
                unread = suffix in UNREAD_IMAGE_SUFFIXES
                (self.empty if unread else self.with_others).add(folders)
        for path in empty_folders:
            if names := self._names(path):
                self.empty.add(tuple(names))

    def _names(self, path: str) -> list[str]:
        names = names_in(path)
        for i, name in enumerate(names):
            if is_junk(name):
                self._junk["/".join(names[: i + 1])] = None
                return []
        return names

    def junk(self) -> LeftOut | None:
        """Files and folders that systems and programs left; a folder counts once."""
        return _left_out("junk", list(self._junk)) if self._junk else None

    def left_out(self) -> list[LeftOut]:
        """Files that are no images that are read, by kind."""
        kinds = {
            suffix: f"{suffix or 'without an ending'}"
            + (", a kind of image that is not read" if suffix in UNREAD_IMAGE_SUFFIXES else "")
            for suffix in sorted(self.others)
        }
        return [_left_out(kind, self.others[suffix]) for suffix, kind in kinds.items()]


@dataclass(frozen=True)
class _Folder:
    """A folder with images."""

    names: _Names
    part: str | None
    chain: _Names  # the names that say no part
    where: tuple[int, ...]  # of the chain's names among all names
    paths: tuple[str, ...]


class _Tree:
    """The folders with images, their parts known."""

    def __init__(self, listing: _Listing, where: Path) -> None:
        self._listing, self._where = listing, where
        by_folder: defaultdict[_Names, list[str]] = defaultdict(list)
        for names, path in listing.images:
            by_folder[names].append(path)
        self._mute = _mute(list(by_folder), _own_name(where))
        folders = [self._folder(names, tuple(paths)) for names, paths in by_folder.items()]
        has_parts = any(folder.part for folder in folders)
        self._inside = [folder for folder in folders if folder.part or not has_parts]
        self._outside = [folder for folder in folders if has_parts and not folder.part]
        files = [name for folder in self._inside for name in folder.paths if folder.chain]
        # Without folders that say so, the names of FER-2013's files tell the parts, if all do.
        self._by_name = not has_parts and all(
            OFFICIAL_FILE.match(path.rpartition("/")[2]) for path in files
        )
        self.deepest = max((len(folder.chain) for folder in self._inside), default=0)

    def _folder(self, names: _Names, paths: tuple[str, ...]) -> _Folder:
        said = [part_of(name) for name in names]
        parts = {part for part in said[self._mute :] if part}
        if len(parts) > 1:
            raise DataError(
                f"Expected at most one part on the way to an image in {self._where}. Received: "
                f"{quote(as_text(paths[0]), 200)}, which says {' and '.join(sorted(parts))}; "
                "rename one of the folders"
            )
        where = tuple(i for i, part in enumerate(said) if part is None)
        chain = tuple(names[i] for i in where)
        return _Folder(names, parts.pop() if parts else None, chain, where, paths)

    def class_level(self) -> int:
        """The first level that is no pass-through, from 0.

        Raises:
            DataError: a deeper level may be meant.
        """
        level = 0
        while self._is_passed(level):
            level += 1
        readings = [level, *self._others(level)]
        if len(readings) > 1:
            texts = [
                f"{len(names)} classes {_listed(names)} (--class-level {other + 1})"
                for other in readings
                for names in [{f.chain[other] for f in self._inside if len(f.chain) > other}]
            ]
            raise DataError(
                f"Expected one way to read the folders of {self._where}. Found: "
                f"{', or '.join(texts)}; pass the one that is meant"
            )
        return level

    def _is_passed(self, level: int) -> bool:
        """Whether each part has one folder here, the only one of its parent, without images."""
        deep = [folder for folder in self._inside if len(folder.chain) > level]
        if any(folder.names[-1] == folder.chain[level] == folder.chain[-1] for folder in deep):
            return False
        heads = {(folder.part, folder.chain[level]) for folder in deep}
        parts = {part for part, _ in heads}
        if len(heads) != len(parts) or parts != {f.part for f in deep if len(f.chain) > level + 1}:
            return False
        return not self._beside(self._listing.empty, level) - {name for _, name in heads}

    def _others(self, level: int) -> Iterator[int]:
        """Deeper levels that every image has and whose names repeat under several folders."""
        chains = {folder.chain for folder in self._inside if len(folder.chain) > level}
        for other in range(level + 1, min(len(chain) for chain in chains)):
            parents: defaultdict[str, set[_Names]] = defaultdict(set)
            for chain in chains:
                parents[chain[other]].add(chain[:other])
            if len(parents) > 1 and any(len(above) > 1 for above in parents.values()):
                yield other

    def _beside(self, bare: Iterable[_Names], level: int) -> set[str]:
        """Names of those folders that lie beside or are folders of this level."""
        above = {f.names[: f.where[level]] for f in self._inside if len(f.chain) > level}
        return {
            names[i]
            for names in bare
            for i in range(len(names))
            if names[:i] in above and part_of(names[i]) is None
        }

    def placed(self, level: int) -> list[Placed]:
        """The images that lie in class folders, in the order of their paths."""
        return sorted(
            (
                Placed(path, self._part(folder, path), folder.chain[level])
                for folder in self._inside
                if len(folder.chain) > level
                for path in folder.paths
            ),
            key=lambda file: file.path,
        )

    def _part(self, folder: _Folder, path: str) -> str:
        if self._by_name:
            # Kaggle's folders put both of these into test, too: split=official tells them apart.
            return "train" if usage(path) == "Training" else "test"
        return folder.part or "train"

    def passed(self, level: int) -> tuple[str, ...]:
        """Names of the folders above the classes."""
        names = (name for f in self._inside for name in f.chain[:level] if len(f.chain) > level)
        return tuple(dict.fromkeys(names))

    def without_images(self, level: int, class_names: Sequence[str]) -> set[str]:
        """Folders beside the class folders in which no image lies."""
        bare = self._listing.empty | self._listing.with_others
        return self._beside(bare, level) - set(class_names)

    def refuse_outside(self, placed: Sequence[Placed]) -> None:
        """Raises DataError if images in no part seem to be labelled, or no train part is there."""
        outside = [path for folder in self._outside for path in folder.paths]
        beside = f", and {len(outside)} images in no part" if outside else ""
        counts = Counter(file.part for file in placed)
        if "train" not in counts:
            found = ", ".join(f"{n} in {part}" for part, n in counts.items())
            raise DataError(
                f"Expected images for training in {self._where}. Found: {found or 'none'} "
                f"({quote(as_text(placed[0].path)) if placed else 'no class folder'}){beside}; a "
                "folder's name says its part by the words train, val, test: pass the folder that "
                "holds train, or rename"
            )
        labels = {file.label.lower() for file in placed}
        for folder in self._outside:
            if labels & {name.lower() for name in folder.chain}:
                raise DataError(
                    f"Expected every labelled image of {self._where} in a part, as others are. "
                    f"Received: {quote(as_text(folder.paths[0]), 200)}; let the name of its folder "
                    "say train, val or test, or take it out"
                )

    def left_out(self, level: int) -> Iterator[LeftOut]:
        """Images that lie in no class folder or in no part."""
        short = [path for f in self._inside if len(f.chain) <= level for path in f.paths]
        outside = [path for folder in self._outside for path in folder.paths]
        if short:
            yield _left_out("in no class folder", short)
        if outside:
            yield _left_out("in none of the parts", outside)


def _mute(folders: Sequence[_Names], own_name: str) -> int:
    """How many of the first names say no part: those that all images share, if train is below.

    A folder that holds everything tells nothing apart. Without train below it counts, so that a
    test part by itself is not trained on, unless it has the root's own name.
    """
    deep = [names for names in folders if names]
    levels = takewhile(lambda names: len(set(names)) == 1, zip(*deep, strict=False))
    shared = sum(1 for _ in levels)
    if any(part_of(name) == "train" for names in deep for name in names[shared:]):
        return shared
    return 1 if shared and deep[0][0] == own_name else 0


def _own_name(where: Path) -> str:
    return re.sub(r"\.(zip|tar|tgz)(\.\w+)?$", "", where.name, flags=re.IGNORECASE)


def _class_names(placed: Sequence[Placed], where: Path) -> tuple[str, ...]:
    by_part = {(file.part, file.label) for file in placed}
    train = {label for part, label in by_part if part == "train"}
    lacking = sorted({label for _, label in by_part} - train)
    if lacking:
        parts = [p for p in PARTS if any((p, label) in by_part for label in lacking)]
        raise DataError(
            f"Expected every class in the training part of {where}. "
            f"Only in {' and '.join(parts)}: {_listed(lacking)}"
        )
    if len(train) < 2:
        raise DataError(f"Expected at least two classes in {where}. Found: {_listed(train)}")
    for name in train:
        if len(name) > _LONGEST_CLASS or not is_text(name):
            raise DataError(
                f"Expected class folders with names of at most {_LONGEST_CLASS} characters, none "
                f"of them a control character or of an unknown encoding, in {where}. Received: "
                f"{quote(as_text(name))}"
            )
    return tuple(sorted(train))


def _no_classes(listing: _Listing, where: Path) -> str:
    """Why nothing can be read, as far as the names tell."""
    images, others = listing.images, listing.others
    count = len(images) + sum(map(len, others.values()))
    message = (
        f"Expected class folders with images (angry/…, or train/angry/…) in {where}. "
        f"Found: {count} files, none in a class folder"
    )
    archives = [path for suffix in _ARCHIVES for path in others.get(suffix, ())]
    inside = [path for names, path in images if names]
    unread = [path for suffix in UNREAD_IMAGE_SUFFIXES for path in others.get(suffix, ())]
    if inside:
        path = quote(as_text(inside[0]), 200)
        return f"{message}: {path} lies in a part, but no folder says its class"
    if archives:
        path = quote(as_text(min(archives)), 200)
        return f"{message}; it holds {path}: unpack that, and pass what comes out"
    if unread and not images:
        path = quote(as_text(min(unread)), 200)
        return f"{message}; images such as {path} are not read: save them as PNG or JPEG"
    return message


def _left_out(kind: str, paths: Sequence[str]) -> LeftOut:
    return LeftOut(kind, len(paths), tuple(sorted(paths)[:_EXAMPLES]))


def _letters(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name).lower()


def _listed(names: Iterable[str], most: int = 10) -> str:
    """Names in their order, some of them if they are many."""
    ordered = [quote(as_text(name)) for name in sorted(names)]
    return ", ".join(ordered[:most]) + (", …" if len(ordered) > most else "")
