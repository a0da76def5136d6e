"""Every change that mutmut knows, in functions and methods of a file; decorated ones too."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of a file."""

    key: str  # the same as long as the function around it is
    file: str
    function: str
    line: int
    before: str
    after: str
    code: str  # the whole file, changed
    original: str  # and as it is


class _Visitor(MutationVisitor):
    """mutmut leaves decorated functions out, since it copies functions; here nothing is copied."""

    METADATA_DEPENDENCIES = (  # type: ignore[assignment]  # mutmut's own are exactly two
        *MutationVisitor.METADATA_DEPENDENCIES,
        ParentNodeProvider,
    )

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return super()._skip_node_and_children(node)


class File:
    """The changes of a file, in their order."""

    def __init__(self, root: Path, name: str) -> None:
        self._name = name
        source = (root / name).read_text(encoding="utf-8")
        wrapper = MetadataWrapper(cst.parse_module(source))
        visitor = _Visitor(mutation_operators, IgnoredCode(set(), set(), set()))
        self._module = wrapper.visit(visitor)
        self._parents = wrapper.resolve(ParentNodeProvider)
        self._places = wrapper.resolve(cst.metadata.PositionProvider)
        self._found = [
            mutation
            for mutation in visitor.mutations
            if mutation.contained_by_top_level_function is not None
            and not self._is_wording(mutation.original_node, mutation.mutated_node)
        ]

    def __len__(self) -> int:
        return len(self._found)

    def changes(self, chosen: set[int]) -> Iterator[Change]:
        """Those with these numbers."""
        seen: Counter[str] = Counter()
        contents: dict[int, str] = {}  # of functions, by the id of their node
        for number, mutation in enumerate(self._found):
            around = mutation.contained_by_top_level_function
            assert around is not None
            if id(around) not in contents:
                contents[id(around)] = self._module.code_for_node(around)
            content = contents[id(around)]
            seen[content] += 1
            if number not in chosen:
                continue
            changed = self._module.deep_replace(mutation.original_node, mutation.mutated_node)
            assert isinstance(changed, cst.Module)
            code = changed.code
            before, after = _differing_lines(self._module.code, code)
            told = f"{self._name}\n{content}\n{seen[content]}\n{after}"
            yield Change(
                key=hashlib.blake2b(told.encode(), digest_size=5).hexdigest(),
                file=self._name,
                function=getattr(getattr(around, "name", None), "value", "?"),
                line=self._places[mutation.original_node].start.line,
                before=before,
                after=after,
                code=code,
                original=self._module.code,
            )

    def _is_wording(self, before: cst.CSTNode, after: cst.CSTNode) -> bool:
        """Texts for people, and `strict=` of zip, which holds what never happens."""
        if isinstance(before, cst.SimpleString):
            return " " in before.raw_value or isinstance(
                self._parents.get(before), cst.ConcatenatedString
            )
        if isinstance(before, cst.Name):
            before = self._parents.get(before, before)
        if isinstance(before, cst.Arg):
            return before.keyword is not None and before.keyword.value == "strict"
        if isinstance(before, cst.Call) and isinstance(after, cst.Call):
            kept = {_text(argument) for argument in after.args}
            return any(
                argument.keyword is not None
                and argument.keyword.value == "strict"
                and _text(argument) not in kept
                for argument in before.args
            )
        return False


def _text(node: cst.CSTNode) -> str:
    return cst.Module(body=()).code_for_node(node)


def _differing_lines(before: str, after: str) -> tuple[str, str]:
    """What differs, each as whole lines without the space around them."""
    old, new = before.splitlines(), after.splitlines()
    start = next(i for i, (a, b) in enumerate(zip([*old, ""], [*new, ""])) if a != b)  # noqa: B905
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    first, second = (
        " ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new)
    )
    return first, second
