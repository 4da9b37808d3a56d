"""One scan out of a series that may hold several: sent twice, acquired twice, or at several times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from DiffSegLungLib.io.dicom_images import Slice
from DiffSegLungLib.io.dicom_pixels import slice_hu
from DiffSegLungLib.io.image_files import FEWEST_SLICES, unusable

SAME_PLACE_MM = 0.01
FEWEST_AMONG = 2
"""Slices of one acquisition among those of another from which they overlap: neighbours may touch."""
EVEN = 0.1
"""What the steps of an even stack may differ by, as a share."""


def one_scan(stack: Sequence[Slice], name: str) -> tuple[list[Slice], list[str]]:
    """The slices of one scan, from the first along the slice normal to the last, and what was left out.

    Args:
        stack: slices of one patient, frame of reference, size, spacing and orientation.
        name: for messages.

    Raises:
        UnusableInputError: there are several points in time, or several scans that nothing tells apart.
    """
    warnings: list[str] = []
    instances = {(each.file.instance or str(each.file.path), each.frame): each for each in stack}
    slices = _ordered(instances.values())
    if len(_passes(slices, lambda each: each.plane.time)) > 1:
        times = len({each.plane.time for each in slices})
        raise unusable(name, f"holds {times} points in time; give one time point only.")
    slices = _without_copies(slices, warnings)
    for key in (lambda each: each.plane.acquisition, lambda each: each.plane.stack):
        slices = _largest_pass(_passes(slices, key), warnings)
    if _count_of_shared_places(slices):
        raise unusable(
            name,
            "several images lie at one position (4D or mixed) and differ; give one time point only, in a "
            "folder of its own.",
        )
    return _one_of_two_interleaved(slices, warnings), warnings


def height(each: Slice, normal: np.ndarray) -> float:
    """Of a slice along a normal, in mm."""
    return float(np.dot(each.plane.position, normal))


def heights(slices: Sequence[Slice]) -> np.ndarray:
    """Of slices along the normal of the first, in mm."""
    return np.asarray([height(each, slices[0].plane.normal) for each in slices])


def _ordered(slices: Iterable[Slice]) -> list[Slice]:
    given = list(slices)
    normal = given[0].plane.normal
    return sorted(given, key=lambda each: (height(each, normal), each.file.order, each.frame))


def _count_of_shared_places(slices: Sequence[Slice]) -> int:
    return int(np.count_nonzero(np.diff(heights(slices)) < SAME_PLACE_MM))


def _without_copies(slices: list[Slice], warnings: list[str]) -> list[Slice]:
    """Of slices at one place with the same values one stays, of the kind of file that most of them are in."""
    in_many = 2 * sum(len(each.file.planes) > 1 for each in slices) > len(slices)
    given = sorted(slices, key=lambda each: (len(each.file.planes) > 1) is not in_many)
    normal = slices[0].plane.normal
    places = np.full(len(given), np.nan)
    kept: list[Slice] = []
    for each in given:
        place = height(each, normal)
        here = np.flatnonzero(np.abs(places[: len(kept)] - place) < SAME_PLACE_MM)
        if not any(_same_values(kept[index], each) for index in here):
            places[len(kept)] = place
            kept.append(each)
    if left_out := len(slices) - len(kept):
        warnings.append(f"{left_out} slices are there twice with the same values; the copies were left out.")
    return _ordered(kept)


def _same_values(first: Slice, second: Slice) -> bool:
    try:
        return np.array_equal(slice_hu(first), slice_hu(second))
    except (RuntimeError, ValueError):  # what cannot be read is said when the series is
        return False


def _passes(slices: Sequence[Slice], key: Callable[[Slice], str]) -> list[list[Slice]]:
    """Groups of slices that lie over each other; those that lie side by side are one.

    A scanner that steps may number each step, and a dual acquisition overlaps the first from end to end.
    """
    groups: dict[str, list[Slice]] = {}
    for each in slices:
        groups.setdefault(key(each), []).append(each)
    if len(groups) < 2:
        return [list(slices)]
    normal = slices[0].plane.normal
    passes: list[list[Slice]] = []
    for group in sorted(groups.values(), key=len, reverse=True):
        free = next((one for one in passes if not _overlap(one, group, normal)), None)
        if free is None:
            passes.append(list(group))
        else:
            free.extend(group)
    return passes


def _overlap(first: Sequence[Slice], second: Sequence[Slice], normal: np.ndarray) -> bool:
    """Whether slices of the first lie among those of the second, or at one of their places."""
    ours, theirs = (np.sort([height(each, normal) for each in group]) for group in (first, second))
    among = np.count_nonzero((ours > theirs[0]) & (ours < theirs[-1]))
    alike = np.diff(np.sort(np.concatenate([ours, theirs]))).min() < SAME_PLACE_MM
    return bool(alike or among >= FEWEST_AMONG)


def _largest_pass(passes: list[list[Slice]], warnings: list[str]) -> list[Slice]:
    if len(passes) == 1:
        return _ordered(passes[0])
    most = max(map(len, passes))
    taken = min((each for each in passes if len(each) == most), key=lambda each: each[0].file.order)
    others = ", ".join(f"{len(each)} slices" for each in passes if each is not taken)
    warnings.append(
        f"The series holds {len(passes)} scans of one region; the one with {len(taken)} slices was taken, "
        f"not taken: {others}."
    )
    return _ordered(taken)


def _one_of_two_interleaved(slices: list[Slice], warnings: list[str]) -> list[Slice]:
    """Of two passes that lie between each other, each of even steps, the first: the patient has breathed."""
    if len(slices) < 2 * FEWEST_SLICES or _is_even(heights(slices)):
        return slices
    passes = [slices[::2], slices[1::2]]
    if not all(_is_even(heights(each)) for each in passes):
        return slices
    taken = min(passes, key=lambda each: each[0].file.order)
    warnings.append(
        f"The series holds two scans whose slices lie between each other; the first, of {len(taken)} slices, "
        "was taken."
    )
    return taken


def _is_even(places: np.ndarray) -> bool:
    steps = np.diff(places)
    return bool(np.abs(steps - np.median(steps)).max() < EVEN * np.median(steps))
