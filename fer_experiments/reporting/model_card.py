"""The model card of a registered version, after Mitchell et al. 2019."""

from __future__ import annotations

from fer_experiments.reporting.comparison_tables import scores_in_words
from fer_experiments.reporting.photo_notes import photo_line
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.models import LoggedModel


def model_card(best: Evaluation, trained: LoggedModel) -> str:
    """What a registered version is, how good, what it is for and what not, as Markdown.

    Args:
        best: its evaluation.
        trained: the model itself.
    """
    params = best.run.params
    rows = [
        f"{best.label}: {params['backbone']} with weights `{params['weights']}`, "
        f"truncated at `{params['truncate_at']}`, recipe `{params['recipe']}`, trained on "
        f"{trained.dataset_name} (dataset `{trained.config.data.dataset}`, fingerprint "
        f"`{trained.dataset_fingerprint[:16]}`), judged on {best.tags['dataset_name']} "
        f"(`{best.fingerprint[:16]}`).",
        "",
        "| | images | accuracy (95 % interval) | macro-F1 (95 % interval) | ECE |",
        "|---|---:|---:|---:|---:|",
    ]
    duplicated = [s for s in ("val", "test") if best.metrics.get(f"{s}/images_with_twin")]
    for split in ("val", "val/clean", "test", "test/clean"):
        if split.endswith("/clean") and split.removesuffix("/clean") not in duplicated:
            continue
        if f"{split}/accuracy" in best.metrics:
            rows.append(f"| {split} | {' | '.join(scores_in_words(best, split))} |")
    photo = photo_line(best.metrics)
    if photo:
        rows += ["", f"**On photos**: {photo.removeprefix('photo ')}."]
    remarks = [best.val_remark]
    if duplicated:
        remarks.append("clean: images that the model was not trained on.")
    if best.overlap_unknown:
        remarks.append(f"Unknown which of them it was trained on: {best.overlap_unknown}.")
    rows += [
        "",
        " ".join(remarks).strip(),
        "",
        "**Input**: float32 pixels 0–255, grey, one face filling the image.",
        "",
        "**Limits**: the labels are what people guessed; on FER-2013 people themselves name about "
        "65 % as labelled (Goodfellow et al. 2013). Faces unlike the training images are judged "
        "worse.",
        "",
        "**Intended use**: comparing image backbones, teaching, research. Not for judging people: "
        "a face does not tell what a person feels.",
    ]
    return "\n".join(rows)
