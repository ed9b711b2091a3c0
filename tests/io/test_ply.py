import contextlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, Vision3DError
from vision3d.io.ply import read_gaussians, read_points, write_gaussians, write_points
from vision3d.scene import GaussianScene
from vision3d.scene.gaussians import FLAT_LOG_SCALE

BASE = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"]
TAIL = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def random_scene(degree=3, count=7, **changes):
    generator = torch.Generator().manual_seed(degree)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    scene = GaussianScene(draw(count, 3), draw(count, 4), draw(count, 3), draw(count), draw(count, (degree + 1) ** 2, 3))
    return replace(scene, **changes)


def assert_same(a, b):
    for name in ("means", "quats", "log_scales", "opacity_logits", "sh"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.mode, a.antialiased) == (b.mode, b.antialiased)
    assert (a.labels is None and b.labels is None) or torch.equal(a.labels, b.labels)


def plain_rows(scene):
    """Names and rows in the INRIA layout, built by hand."""
    names = [*BASE, *(f"f_rest_{i}" for i in range(3 * (scene.sh.shape[1] - 1))), *TAIL]
    rest = [scene.sh[:, 1:, channel] for channel in range(3)]  # planar: red, green, blue
    parts = [scene.means, scene.sh[:, 0], *rest, scene.opacity_logits[:, None], scene.log_scales, scene.quats]
    return names, torch.cat(parts, 1).numpy()


def write_by_hand(path, names, rows, encoding="binary_little_endian", kind="float", comments=()):
    lines = ["ply", f"format {encoding} 1.0", *(f"comment {c}" for c in comments), f"element vertex {len(rows)}"]
    header = "\n".join([*lines, *(f"property {kind} {name}" for name in names), "end_header", ""]).encode()
    dtype = {"float": "f4", "double": "f8"}[kind]
    if encoding == "ascii":
        body = "\n".join(" ".join(repr(float(v)) for v in row) for row in rows).encode() + b"\n"
    else:
        body = rows.astype((">" if "big" in encoding else "<") + dtype).tobytes()
    path.write_bytes(header + body)


@pytest.mark.parametrize("degree", range(5))
def test_round_trip_is_exact(tmp_path, degree):
    scene = random_scene(degree)
    write_gaussians(tmp_path / "s.ply", scene)
    assert_same(read_gaussians(tmp_path / "s.ply"), scene)


@pytest.mark.parametrize(
    "changes, comment",
    [
        ({"mode": "2dgs"}, b"comment SplatRenderMode: 2dgs\n"),
        ({"antialiased": True}, b"comment SplatRenderMode: mip\n"),
        ({"mode": "flat"}, b"comment Vision3dMode: flat\n"),
        ({"mode": "flat", "antialiased": True}, b"comment Vision3dMode: flat\n"),
        ({"labels": torch.tensor([0, -1, 2, 3, 2**24 + 1, 5, 6])}, b"property int label\n"),
    ],
)
def test_modes_and_labels_round_trip(tmp_path, changes, comment):
    scene = random_scene(1, **changes)
    write_gaussians(tmp_path / "s.ply", scene)
    assert comment in (tmp_path / "s.ply").read_bytes()
    assert_same(read_gaussians(tmp_path / "s.ply"), scene)


def test_written_bytes_have_the_documented_layout(tmp_path):
    scene = random_scene(2)
    write_gaussians(tmp_path / "s.ply", scene)
    names, rows = plain_rows(scene)
    header, body = (tmp_path / "s.ply").read_bytes().split(b"end_header\n", 1)
    assert body == rows.astype("<f4").tobytes()
    assert [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property")] == names


@pytest.mark.parametrize("encoding", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_all_encodings_and_any_order(tmp_path, encoding, kind):
    scene = random_scene(3)
    names, rows = plain_rows(scene)
    names += ["nx", "ny", "nz"]  # as written by the INRIA code
    rows = np.concatenate([rows, np.zeros((len(rows), 3), np.float32)], 1)
    order = np.random.default_rng(0).permutation(len(names))
    write_by_hand(tmp_path / "s.ply", [names[i] for i in order], rows[:, order], encoding, kind)
    assert_same(read_gaussians(tmp_path / "s.ply"), scene)


def test_two_scales_are_discs(tmp_path):
    names, rows = plain_rows(random_scene(0))
    place = names.index("scale_2")
    write_by_hand(tmp_path / "s.ply", names[:place] + names[place + 1 :], np.delete(rows, place, 1))
    scene = read_gaussians(tmp_path / "s.ply")
    assert scene.mode == "2dgs" and (scene.log_scales[:, 2] == np.float32(FLAT_LOG_SCALE)).all()


def test_elements_before_and_after_are_skipped(tmp_path):
    scene = random_scene(0)
    write_gaussians(tmp_path / "s.ply", scene)
    data = (tmp_path / "s.ply").read_bytes()
    header, body = data.split(b"end_header\n", 1)
    header = header.replace(b"element vertex", b"element chunk 2\nproperty uchar a\nproperty double b\nelement vertex")
    header += b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "s.ply").write_bytes(header + b"\0" * 18 + body + b"\3" + b"\0" * 12)
    assert_same(read_gaussians(tmp_path / "s.ply"), scene)


def test_many_rows_span_several_chunks(tmp_path):
    scene = random_scene(1, count=10_001)
    write_gaussians(tmp_path / "s.ply", scene)
    assert_same(read_gaussians(tmp_path / "s.ply"), scene)


def bad_row_file(path, value=np.nan, column="f_rest_4"):
    names, rows = plain_rows(random_scene(1))
    rows[[2, 5], names.index(column)] = value
    write_by_hand(path, names, rows)


def test_rows_that_are_not_finite(tmp_path):
    bad_row_file(tmp_path / "s.ply")
    with pytest.raises(FileFormatError, match=r"at row 2: 2 of 7 rows are not finite .*--filter-nan drops"):
        read_gaussians(tmp_path / "s.ply")
    kept = read_gaussians(tmp_path / "s.ply", drop_nan=True)
    assert torch.equal(kept.means, random_scene(1).means[[0, 1, 3, 4, 6]])


def test_infinite_opacity_means_opaque(tmp_path):
    bad_row_file(tmp_path / "s.ply", np.inf, "opacity")
    assert read_gaussians(tmp_path / "s.ply").opacities[[2, 5]].tolist() == pytest.approx([1, 1], abs=1e-6)
    bad_row_file(tmp_path / "s.ply", np.inf, "scale_1")
    with pytest.raises(FileFormatError, match="2 of 7 rows"):
        read_gaussians(tmp_path / "s.ply")


def test_zero_rotation_is_a_bad_row(tmp_path):
    scene = random_scene(0)
    names, rows = plain_rows(scene)
    rows[:, -4:] = 0
    write_by_hand(tmp_path / "s.ply", names, rows)
    with pytest.raises(FileFormatError, match="7 of 7 rows are not finite or have a rotation of length zero"):
        read_gaussians(tmp_path / "s.ply", drop_nan=True)


@pytest.mark.parametrize("encoding", ["binary_little_endian", "ascii"])
def test_truncated_files_are_format_errors(tmp_path, encoding):
    names, rows = plain_rows(random_scene(0, count=3))
    write_by_hand(tmp_path / "s.ply", names, rows, encoding)
    data = (tmp_path / "s.ply").read_bytes()
    # In text, losing the final line end or digits of the last number cannot be detected.
    end = len(data) if encoding != "ascii" else data.rindex(b" ")
    for length in range(end):
        (tmp_path / "s.ply").write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            read_gaussians(tmp_path / "s.ply")


@pytest.mark.parametrize("encoding, text", [("binary_little_endian", "2 whole rows of 7"), ("ascii", "2 rows of 7")])
def test_truncated_files_count_their_rows(tmp_path, encoding, text):
    names, rows = plain_rows(random_scene(0))
    write_by_hand(tmp_path / "s.ply", names, rows, encoding)
    data = (tmp_path / "s.ply").read_bytes()
    start = data.index(b"end_header\n") + 11
    length = start + 2 * 56 + 30 if encoding != "ascii" else start + len(b"\n".join(data[start:].split(b"\n")[:2])) + 1
    (tmp_path / "s.ply").write_bytes(data[:length])
    with pytest.raises(FileFormatError, match=rf"s\.ply at byte {length}: is truncated: it holds {text}"):
        read_gaussians(tmp_path / "s.ply")


def test_random_bytes_are_a_format_error(tmp_path):
    names, rows = plain_rows(random_scene(1, count=3))
    write_by_hand(tmp_path / "s.ply", names, rows)
    data = bytearray((tmp_path / "s.ply").read_bytes())
    random = np.random.default_rng(0)
    end = data.index(b"end_header")
    for _ in range(300):
        broken = bytearray(data)
        for place in random.integers(0, end, 3):
            broken[place] = random.integers(0, 256)
        (tmp_path / "s.ply").write_bytes(broken)
        with contextlib.suppress(FileFormatError):
            read_gaussians(tmp_path / "s.ply")


HEADER = b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is not a .ply file"),
        (b"plyx\n", "is not a .ply file"),
        (b"ply\nformat binary 1.0\nend_header\n", "format 'binary' is unknown; want ascii, binary_little_endian"),
        (b"ply\nelement vertex 1\nend_header\n", "header has no format line"),
        (HEADER + b"property float x\nproperty float x\nend_header\n", "property 'x' is given twice"),
        (HEADER + b"property quad x\nend_header\n", "header line 'property quad x' is not understood"),
        (b"ply\nformat ascii 1.0\nelement face 3\nend_header\n", "has no element 'vertex'; elements: face"),
        (HEADER.replace(b" 1\n", b" 0\n") + b"property float x\nend_header\n", "element 'vertex' has 0 rows"),
        (HEADER.replace(b" 1\n", b" -1\n") + b"end_header\n", "'element vertex -1' is not understood"),
        (HEADER + b"end_header\n", "has no properties"),
        (HEADER.replace(b" 1\n", b" 99999999999999\n") + b"property float x\nend_header\n1234", "1 whole rows of 9999"),
        (HEADER + b"property list uchar int x\nend_header\n", "has list properties"),
        (b"ply\n" + b"comment x\n" * 9000, "no end_header in its first 65536 bytes"),
        (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\nabc\n",
            "row 1 of 1 is not understood",
        ),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1 2\n", "rows have 2 values, want 1"),
    ],
)
def test_damaged_headers(tmp_path, data, message):
    (tmp_path / "s.ply").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        read_gaussians(tmp_path / "s.ply")


def test_missing_properties_are_named(tmp_path):
    names, rows = plain_rows(random_scene(0))
    keep = [i for i, name in enumerate(names) if name not in ("rot_2", "opacity")]
    write_by_hand(tmp_path / "s.ply", [names[i] for i in keep], rows[:, keep])
    with pytest.raises(FileFormatError, match=r"at header: lacks opacity rot_2, which a Gaussian scene needs; it has x y z"):
        read_gaussians(tmp_path / "s.ply")
    names, rows = plain_rows(random_scene(1))
    write_by_hand(tmp_path / "s.ply", names[:10] + names[11:], np.delete(rows, 10, 1))
    with pytest.raises(FileFormatError, match="has 8 f_rest properties, want 0, 9, 24, 45 or 72"):
        read_gaussians(tmp_path / "s.ply")


def test_point_clouds(tmp_path):
    points, colors = torch.randn(20, 3), torch.rand(20, 3)
    write_points(tmp_path / "p.ply", points, colors)
    read, read_colors = read_points(tmp_path / "p.ply")
    assert torch.equal(read, points)
    torch.testing.assert_close(read_colors, colors, atol=0.5 / 255 + 1e-6, rtol=0)
    with pytest.raises(FileFormatError, match=r"a point cloud: read it with vision3d\.io\.ply\.read_points"):
        read_gaussians(tmp_path / "p.ply")
    write_points(tmp_path / "p.ply", points)
    assert read_points(tmp_path / "p.ply")[1] is None


def test_point_clouds_of_text_and_float_colors(tmp_path):
    rows = np.array([[1, 2, 3, 255, 0, 51], [4, 5, 6, 0, 255, 0]], np.float32)
    names = ["x", "y", "z", "red", "green", "blue"]
    write_by_hand(tmp_path / "p.ply", names, rows, "ascii")
    torch.testing.assert_close(read_points(tmp_path / "p.ply")[1][0], torch.tensor([1.0, 0.0, 0.2]))
    rows[:, 3:] /= 255
    write_by_hand(tmp_path / "p.ply", names, rows)
    torch.testing.assert_close(read_points(tmp_path / "p.ply")[1][0], torch.tensor([1.0, 0.0, 0.2]))
    rows[1, 1] = np.nan
    write_by_hand(tmp_path / "p.ply", names, rows)
    with pytest.raises(FileFormatError, match="1 of 2 points are not finite"):
        read_points(tmp_path / "p.ply")


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.ply: does not exist; want a \.ply file"):
        read_gaussians(tmp_path / "none.ply")


def test_writing_rejects_invalid_scenes(tmp_path):
    with pytest.raises(InputError, match="got 0 Gaussians"):
        write_gaussians(tmp_path / "s.ply", random_scene()[:0])
    with pytest.raises(InputError, match="labels reach"):
        write_gaussians(tmp_path / "s.ply", random_scene(labels=torch.full((7,), 2**40)))
    assert not (tmp_path / "s.ply").exists()


def test_a_full_disk_keeps_the_previous_scene(tmp_path, monkeypatch):
    earlier = random_scene(1)
    write_gaussians(tmp_path / "s.ply", earlier)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vision3d.io.ply_file.np.empty", full)  # in the middle of the rows
    with pytest.raises(Vision3DError, match=r"could not be written .*; the previous file is unchanged"):
        write_gaussians(tmp_path / "s.ply", random_scene(2))
    monkeypatch.undo()
    assert_same(read_gaussians(tmp_path / "s.ply"), earlier)
    assert len(list(tmp_path.iterdir())) == 1


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("name", ["scene.ply", "cameras.json", "image.png", "model.pt"])
def test_a_pickle_in_disguise_is_not_executed(tmp_path, monkeypatch, name):
    from vision3d.scene import load

    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError):
        load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()
