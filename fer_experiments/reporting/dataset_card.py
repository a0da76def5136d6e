"""A prepared dataset in words: its card, what the audit found, how files became pixels."""

from __future__ import annotations

from collections.abc import Mapping

from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import FLOAT, INTEGER, SQUASH
from fer_experiments.reporting.tables import markdown


def card(prepared: PreparedDataset) -> str:
    """The dataset card as Markdown."""
    manifest = prepared.manifest
    splits = [split for split in ("train", "val", "test") if prepared.size(split)]
    rows = [
        [name, *(str(prepared.counts[split][i]) for split in splits)]
        for i, name in enumerate(prepared.class_names)
    ]
    rows.append(["**all**", *(str(prepared.size(split)) for split in splits)])
    lines = [
        f"# {prepared.name}",
        "",
        f"{prepared.image_size}×{prepared.image_size} grey images from "
        f"`{manifest['source']['dataset']}`, split `{manifest['split']}`.",
        "",
        *markdown(["class", *splits], rows),
        "",
        "## Audit",
        "",
    ]
    lines += [f"- {text}" for text in audit_lines(prepared)]
    if manifest.get("left_out"):  # older versions did not tell
        lines += ["", "## Left out", "", *[f"- {text}" for text in manifest["left_out"]]]
    if manifest["skipped"]:
        lines += ["", "## Skipped files", "", *[f"- {text}" for text in manifest["skipped"]]]
    lines += ["", f"Fingerprint: `{prepared.fingerprint}`", ""]
    return "\n".join(lines)


def audit_lines(prepared: PreparedDataset) -> list[str]:
    """The audit in words."""
    audit = prepared.manifest["audit"]
    dropped = audit.get("dropped_from_train")
    return [
        f"{audit['duplicate_groups']} sets of identical images ({audit['duplicate_images']} "
        f"images); {audit['cross_split_groups']} sets reach over splits",
        f"{audit['val_in_train']} val and {audit['test_in_train']} test images also stand in train",
        *([f"{dropped} training images that also stand there were dropped"] if dropped else []),
        f"{audit['conflicting_groups']} sets of identical images carry different labels",
        f"blank images: {_by_split(audit['blank_images'])}",
        # Data that older versions prepared were not asked.
        *(
            [f"images with less than a tenth of the range of grey: {_by_split(faint)}"]
            if any((faint := audit.get("faint_images", {})).values())
            else []
        ),
        altered_line(prepared) or "no file skipped, converted or resized",
        *pixel_lines(prepared),
    ]


def _by_split(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} in {split}" for split, n in counts.items() if n) or "none"


def pixel_lines(prepared: PreparedDataset) -> list[str]:
    """How files became pixels, where that was not plain."""
    lines = []
    if prepared.detector != "none":
        without = prepared.manifest["no_face"]
        lines.append(
            f"faces cut out of photos by {prepared.detector}; in {without} photos none was found"
        )
    if prepared.crop == SQUASH:
        lines.append("images that were not square were squashed, as older versions did")
    elif prepared.detector == "none" and (count := prepared.manifest.get("not_square")):
        lines.append(f"{count} images were not square: their central square was taken")
    numbers = {INTEGER: "whole numbers of more than 8 bits", FLOAT: "fractions"}
    lines += [
        f"of {numbers[kind]}, {white:g} is white"
        for kind, white in prepared.white.items()
        if kind in numbers
    ]
    return lines


def altered_line(prepared: PreparedDataset) -> str | None:
    """How many files were skipped or changed to fit; None if none was."""
    manifest = prepared.manifest
    counts = (len(manifest["skipped"]), manifest["colour_converted"], manifest["resized"])
    if not any(counts):
        return None
    return (
        f"of the files, {counts[0]} were skipped, {counts[1]} converted to grey and "
        f"{counts[2]} resized"
    )
