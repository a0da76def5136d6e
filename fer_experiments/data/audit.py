"""What is wrong with the images: duplicates, leaks between splits, conflicting labels, blanks."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_experiments.data.images import FAINT

if TYPE_CHECKING:
    from fer_experiments.data.dataset import PreparedDataset

# How copies of a picture are told from other faces, in bits of a 256-bit pHash. Brightness changed
# by 5 moves the hash of a face of FER-2013 by 8 bits at most, JPEG at quality 75 by 14; of 10,000
# drawn faces, which resemble each other more than photos do, no two come below 22.
SAME_PICTURE = 16
# One pixel to the side moves it by 42 bits (median), so pairs up to here are laid over each other,
# the one moved by up to a pixel. Edges tell more than tones do, for all faces are light on dark.
PERHAPS_MOVED = 72
LEAST_CORRELATION = 0.82  # of the 50 million pairs of those drawn faces, the highest is 0.79


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Images of one picture."""

    kind: str  # exact: the same pixels; near: altered a little, or mirrored
    members: np.ndarray  # (M,) indices of the images, ascending

    def reaches_over(self, values: np.ndarray) -> bool:
        """Whether the members differ in these values (N,), one for each image: splits, labels."""
        return len(np.unique(values[self.members])) > 1


def pixel_groups(images: np.ndarray) -> np.ndarray:
    """A number for each of the images (N, H, W), the same for images with the same pixels."""
    return np.unique(_digests(images), return_inverse=True)[1]


def is_blank(images: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the images (N, H, W) are of one single grey."""
    flat = images.reshape(len(images), -1)
    return np.asarray(flat.min(axis=1) == flat.max(axis=1))


def is_faint(images: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the uint8 images (N, H, W) use less than a tenth of the range of grey."""
    flat = images.reshape(len(images), -1)
    return np.asarray(np.ptp(flat, axis=1) < FAINT * 255)


def audit(images: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> dict[str, Any]:
    """Counts of what a reader of the scores should know.

    Args:
        images: uint8, (N, H, W).
        labels: int, (N,).
        splits: (N,) of "train", "val", "test".

    Returns:
        duplicate_groups, duplicate_images: sets of images with the same pixels, and how many
        images stand in one; cross_split_groups: sets that reach over splits;
        `<split>_in_train`: images of that split that also stand in train; conflicting_groups:
        sets with more than one label; blank_images: images of one single grey, per split;
        faint_images: images that use less than a tenth of the range of grey, blank ones among
        them, per split.
    """
    group = pixel_groups(images)
    sizes = np.bincount(group)
    in_split = {
        name: np.bincount(group[splits == name], minlength=len(sizes)) > 0
        for name in ("train", "val", "test")
    }
    pairs = np.unique(np.stack([group, labels]), axis=1)
    blank, faint = is_blank(images), is_faint(images)
    return {
        "duplicate_groups": int((sizes > 1).sum()),
        "duplicate_images": int(sizes[sizes > 1].sum()),
        "cross_split_groups": int((np.sum(list(in_split.values()), axis=0) > 1).sum()),
        "val_in_train": int(in_split["train"][group[splits == "val"]].sum()),
        "test_in_train": int(in_split["train"][group[splits == "test"]].sum()),
        "conflicting_groups": int((np.bincount(pairs[0]) > 1).sum()),
        "blank_images": {name: int(blank[splits == name].sum()) for name in in_split},
        "faint_images": {name: int(faint[splits == name].sum()) for name in in_split},
    }


def near_counts(
    near: Sequence[Group], images: np.ndarray, labels: np.ndarray, splits: np.ndarray
) -> dict[str, int]:
    """What `audit` counts, for what `near_groups` found in the same images.

    Returns:
        near_groups, near_images; near_cross_split_groups, near_conflicting_groups;
        near_`<split>`_in_train: images of that split that do not stand in train themselves, but
        whose group has an image there.
    """
    same = pixel_groups(images)
    exact = np.isin(same, same[splits == "train"])
    near_train = np.zeros(len(images), dtype=bool)
    for group in near:
        near_train[group.members] = "train" in splits[group.members]
    more = splits[near_train & ~exact]
    return {
        "near_groups": len(near),
        "near_images": sum(len(g.members) for g in near),
        "near_cross_split_groups": sum(g.reaches_over(splits) for g in near),
        "near_conflicting_groups": sum(g.reaches_over(labels) for g in near),
        "near_val_in_train": int((more == "val").sum()),
        "near_test_in_train": int((more == "test").sum()),
    }


def leaks(images: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """(N,) bool: which training images also stand, pixel by pixel, in val or test."""
    group = pixel_groups(images)
    held_out = np.isin(splits, ("val", "test"))
    return np.asarray((splits == "train") & np.isin(group, group[held_out]))


def exact_groups(images: np.ndarray) -> list[Group]:
    """Sets of images (N, H, W) with the same pixels, in the order of their first members."""
    return _groups("exact", pixel_groups(images), np.arange(len(images)))


def near_groups(images: np.ndarray) -> list[Group]:
    """Sets of uint8 images (N, H, W) of one picture that are not all the same pixels.

    A pair is of one picture if one is a re-encoded, brighter, darker, mirrored or by one pixel
    moved copy of the other; pairs that share an image make one set, which also holds the exact
    copies of its members. Blank images are left out. Compares all pairs: 30,000 images take about
    half a minute.
    """
    same = pixel_groups(images)
    first = np.unique(same, return_index=True)[1]
    first = first[~is_blank(images[first])]
    pairs = _near_pairs(images[first])
    if not len(pairs):
        return []
    ends = same[first[pairs]]  # (P, 2) numbers of pixel groups
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(same.max() + 1,) * 2)
    component = connected_components(links, directed=False)[1]
    members = np.flatnonzero(np.isin(same, ends))
    return _groups("near", component[same[members]], members)


def groups_csv(groups: Sequence[Group], prepared: PreparedDataset) -> str:
    """A line for each image of each group: group (from 1), kind, id, split, label."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["group", "kind", "id", "split", "label"])
    splits = prepared.splits
    for number, group in enumerate(groups, 1):
        for i in group.members:
            label = prepared.class_names[prepared.labels[i]]
            writer.writerow([number, group.kind, prepared.ids[i], splits[i], label])
    return file.getvalue()


def _digests(images: np.ndarray) -> np.ndarray:
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    return np.array(digests, dtype="S16")


def _groups(kind: str, numbers: np.ndarray, members: np.ndarray) -> list[Group]:
    """The members (M,) by their numbers (M,), where more than one has the same."""
    order = np.argsort(numbers, kind="stable")
    parts = np.split(members[order], np.flatnonzero(np.diff(numbers[order])) + 1)
    found = [Group(kind=kind, members=part) for part in parts if len(part) > 1]
    return sorted(found, key=lambda group: int(group.members[0]))


def _near_pairs(images: np.ndarray) -> np.ndarray:
    """(P, 2) indices of images of one picture, as they are or one of them mirrored."""
    hashes, found = _hashes(images), [np.empty((0, 2), dtype=np.int64)]
    for other in (images, images[:, :, ::-1]):
        for pairs, bits in _similar(hashes, hashes if other is images else _hashes(other)):
            moved = _correlation(images[pairs[:, 0]], other[pairs[:, 1]])
            found.append(pairs[(bits <= SAME_PICTURE) | (moved >= LEAST_CORRELATION)])
    return np.concatenate(found)


def _hashes(images: np.ndarray) -> np.ndarray:
    """(N, 4) uint64: the 256 bits of each image's pHash."""
    bits = [
        imagehash.phash(Image.fromarray(image), hash_size=16, highfreq_factor=2).hash.ravel()
        for image in images
    ]
    return np.packbits(np.array(bits, dtype=bool).reshape(-1, 256), axis=1).view(np.uint64)


def _similar(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs i < j, (P, 2), of a[i] and b[j] that differ in few bits, and in how many, (P,)."""
    block, most = 64, 4096  # rows and pairs at a time, which fit into the processor's cache
    for start in range(0, len(a), block):
        rows, columns = a[start : start + block, None], b[None, start:]
        bits = sum(np.bitwise_count(rows[..., k] ^ columns[..., k]).astype(int) for k in range(4))
        pairs = np.argwhere(bits <= PERHAPS_MOVED)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        for part in (pairs[i : i + most] for i in range(0, len(pairs), most)):
            yield part + start, bits[part[:, 0], part[:, 1]]


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P,) how a[i]'s edges and b[i]'s, (P, H, W), correlate, the best of nine moves of b."""
    H, W = a.shape[1:]
    middle = _edges(a[:, 1:-1, 1:-1])
    moved = (_edges(b[:, y : y + H - 2, x : x + W - 2]) for y in range(3) for x in range(3))
    return np.asarray(np.max([np.einsum("pk,pk->p", middle, other) for other in moved], axis=0))


def _edges(images: np.ndarray) -> np.ndarray:
    """Differences between neighbours, (P, K), standardised."""
    tones = images.astype(np.float32)
    across, down = np.diff(tones, axis=2)[:, :-1], np.diff(tones, axis=1)[:, :, :-1]
    flat = np.stack([across, down], axis=1).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
