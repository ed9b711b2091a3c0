"""The process that runs pycolmap: `python -m vision3d.io.sfm_worker` takes a job and prints its progress and its result.

pycolmap catches the signals of its process, prints a C++ stack when one ends it, and cannot be interrupted; so it runs in a
process of its own (`vision3d.io.sfm_job`), which imports neither torch nor the rest of the package. The job is a
line of JSON on the standard input; events are lines of JSON on the standard output: `progress`, then `result` or `error`.
"""

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_ALL_PAIRS = 20  # up to this many photos all pairs are matched
_CODES = 256  # features per photo used to choose pairs
_PARTNERS = 16  # beyond that, number of photos each is matched with
_CHUNK = 32  # pairs
_MIN_INLIERS = 15  # of an overlapping pair of photos
_RATIO = 0.85  # ratio test: distance of the best match over the second best

Emit = Callable[..., None]


def main() -> None:
    """Run the job read from standard input."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the events

    def emit(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        emit(result=_JOBS[job["kind"]](job, emit))
    except Exception as error:
        emit(error=f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """The parent keeps our standard input open as long as it lives."""
    sys.stdin.read()
    os._exit(1)


def _reconstruct(job: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Cameras and points of the photos in `folder`/images; photos of a group share a camera."""
    import pycolmap

    work, threads = Path(job["folder"]), job["threads"]
    names = [name for group in job["groups"] for name in group]
    database = _set_up(pycolmap, job)
    _extract(pycolmap, job, database, emit)
    with pycolmap.Database.open(database) as store:
        found = {image.name: image.image_id for image in store.read_all_images()}
        names = [name for name in names if name in found]
        descriptors = [_descriptors(store, found[name]) for name in names]
    pairs = choose_pairs(descriptors, lambda done: emit(progress=["choose pairs", done, len(names)]))
    _match(pycolmap, job, database, [(names[a], names[b]) for a, b in pairs], emit)
    features = [len(rows) for rows in descriptors]
    with pycolmap.Database.open(database) as store:
        _, inliers = store.read_two_view_geometry_num_inliers()
    result = {"features": float(np.median(features or [0])), "pairs": sum(number >= _MIN_INLIERS for number in inliers)}
    if not result["pairs"]:
        return {**result, "registered": 0, "points": 0}
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=threads,
        random_seed=job["seed"],
        min_model_size=3,
        ba_global_frames_ratio=1.2,
        ba_global_points_ratio=1.2,
    )
    counter = itertools.count(1)
    models = pycolmap.incremental_mapping(
        database,
        work / "images",
        work,
        options,
        next_image_callback=lambda: emit(progress=["find cameras", min(next(counter) + 2, len(names)), len(names)]),
    )
    if not models:
        return {**result, "registered": 0, "points": 0}
    best = max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
    (work / "model").mkdir()
    best.write_binary(work / "model")
    error = best.compute_mean_reprojection_error()
    return {**result, "registered": best.num_reg_images(), "points": best.num_points3D(), "error_px": error}


def _descriptors(store: Any, image_id: int) -> np.ndarray:
    """Descriptors of a photo, largest features first."""
    keypoints, rows = np.asarray(store.read_keypoints(image_id)), np.asarray(store.read_descriptors(image_id).data)
    scales = np.hypot(keypoints[:, 2], keypoints[:, 4 if keypoints.shape[1] > 4 else 2])
    return rows[np.argsort(-scales, kind="stable")]


def _triangulate(job: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Points of the photos in `folder`/images with given pinhole cameras; written to points.npz."""
    import pycolmap

    work, names = Path(job["folder"]), [name for group in job["groups"] for name in group]
    database = _set_up(pycolmap, job)
    _extract(pycolmap, job, database, emit)
    known = _known_reconstruction(pycolmap, database, names, job["intrinsics"], np.array(job["viewmats"]))
    _match(pycolmap, job, database, [(names[a], names[b]) for a, b in job["pairs"]], emit)
    options = pycolmap.IncrementalPipelineOptions(num_threads=job["threads"], random_seed=job["seed"])
    options.mapper.filter_max_reproj_error = job["max_error"]
    options.triangulation.complete_max_reproj_error = job["max_error"]
    options.triangulation.merge_max_reproj_error = job["max_error"]
    result = pycolmap.triangulate_points(known, database, work / "images", work, options=options)
    points = [point for _, point in sorted(result.points3D.items())]
    xyz = np.array([point.xyz for point in points], np.float32).reshape(-1, 3)
    rgb = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    np.savez(work / "points.npz", xyz=xyz, rgb=rgb)
    return {"points": len(points)}


_JOBS = {"reconstruct": _reconstruct, "triangulate": _triangulate}


def choose_pairs(descriptors: Sequence[np.ndarray], report: Callable[[int], None]) -> list[tuple[int, int]]:
    """Pairs of photos to match: all pairs of a few photos; else each with those that share most of its largest features.

    The first features of each photo, which are the largest, are matched by brute force, mutually and with the ratio test
    (Wu 2013, "Towards linear-time incremental structure from motion", preemptive matching).

    Args:
        descriptors: For each photo (n, 128) uint8, largest features first.
        report: Called with the number of photos done.
    """
    count = len(descriptors)
    if count <= _ALL_PAIRS:
        return list(itertools.combinations(range(count), 2))
    codes = np.zeros((count, _CODES, 128), np.float32)
    for code, rows in zip(codes, descriptors):
        few = rows[:_CODES].astype(np.float32)
        code[: len(few)] = few / np.maximum(np.linalg.norm(few, axis=1, keepdims=True), 1e-6)
    scores = np.zeros((count, count), np.int32)
    for a in range(count):
        for b in range(a + 1, count):
            scores[a, b] = scores[b, a] = _num_matches(codes[a] @ codes[b].T)
        report(a + 1)
    pairs = set()
    for a, row in enumerate(scores):
        order = np.lexsort((np.abs(np.arange(count) - a), -row))  # ties: the nearest in name order
        pairs |= {(min(a, int(b)), max(a, int(b))) for b in order[: _PARTNERS + 1] if b != a}
    return sorted(pairs)


def _num_matches(cosines: np.ndarray) -> int:
    """Number of features that are mutually best matches and pass the ratio test."""
    forth, back = cosines.argmax(1), cosines.argmax(0)
    rows = np.flatnonzero(back[forth] == np.arange(len(forth)))
    two = np.partition(cosines[rows], -2, axis=1)[:, -2:]
    distances = np.arccos(np.clip(two, -1, 1))
    return int((distances[:, 1] < _RATIO * distances[:, 0]).sum())


def _set_up(pycolmap: Any, job: dict[str, Any]) -> Path:
    """Configure pycolmap (quiet, seeded), and return the path of its database."""
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.set_random_seed(job["seed"])
    return Path(job["folder"]) / "database.db"


def _extract(pycolmap: Any, job: dict[str, Any], database: Path, emit: Emit) -> None:
    """Extract features of all photos, a few at a time, so that progress can be reported."""
    threads, done = job["threads"], 0
    total = sum(map(len, job["groups"]))
    options = pycolmap.FeatureExtractionOptions(num_threads=threads, max_image_size=job["max_size"], use_gpu=False)
    options.sift.max_num_features, options.sift.first_octave = job["max_features"], job["first_octave"]
    for group in job["groups"]:
        reader = pycolmap.ImageReaderOptions(camera_model=job["camera_model"])
        for names in _chunks(group, 4 * threads):
            pycolmap.extract_features(
                database,
                Path(job["folder"]) / "images",
                names,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            with pycolmap.Database.open(database) as store:
                if store.exists_image(names[0]):
                    reader.existing_camera_id = store.read_image_with_name(names[0]).camera_id
            done += len(names)
            emit(progress=["find features", done, total])


def _match(pycolmap: Any, job: dict[str, Any], database: Path, pairs: list[tuple[str, str]], emit: Emit) -> None:
    file, done = Path(job["folder"]) / "pairs.txt", 0
    for some in _chunks(pairs, _CHUNK * job["threads"]):
        file.write_text("".join(f"{a} {b}\n" for a, b in some), encoding="utf-8")
        pycolmap.match_image_pairs(
            database,
            pycolmap.FeatureMatchingOptions(num_threads=job["threads"], use_gpu=False),
            pycolmap.ImportedPairingOptions(match_list_path=file),
            device=pycolmap.Device.cpu,
        )
        done += len(some)
        emit(progress=["match photos", done, len(pairs)])


def _known_reconstruction(pycolmap: Any, database: Path, names: list[str], intrinsics: Any, viewmats: np.ndarray) -> Any:
    """A reconstruction without points, of our cameras with the ids of the database, which also gets the intrinsics."""
    known = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as store:
        for name, params, viewmat in zip(names, intrinsics, viewmats):
            image = store.read_image_with_name(name)
            camera = store.read_camera(image.camera_id)
            camera.params = params
            camera.has_prior_focal_length = True
            store.update_camera(camera)
            known.add_camera_with_trivial_rig(camera)
            pose = pycolmap.Rigid3d(pycolmap.Rotation3d(viewmat[:3, :3]), viewmat[:3, 3])
            known.add_image_with_trivial_frame(
                pycolmap.Image(name=name, camera_id=image.camera_id, image_id=image.image_id), pose
            )
    return known


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


if __name__ == "__main__":
    main()
