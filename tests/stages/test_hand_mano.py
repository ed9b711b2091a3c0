"""Reading MANO pickles without unpickling: a synthetic one of the same structure, and those that hide code."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from vision3d.core.checkpoints import HiddenCodeError
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.stages.hand import read_mano
from vision3d.stages.hand.pickles import read_arrays


def arrays(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    parents = np.array([4294967295, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], np.uint32)
    return {
        "v_template": rng.normal(size=(778, 3)), "f": rng.integers(0, 778, (1538, 3)).astype(np.uint32),
        "weights": rng.random((778, 16)), "posedirs": rng.normal(size=(778, 3, 135)),
        "kintree_table": np.stack([parents, np.arange(16, dtype=np.uint32)]), "shapedirs": rng.normal(size=(778, 3, 10)),
        "hands_components": rng.normal(size=(45, 45)), "hands_mean": rng.normal(size=45), "bs_style": "lbs",
        "J_regressor": rng.random((16, 778)) * (rng.random((16, 778)) < 0.02),
    }  # fmt: skip


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch):
    """Classes with the names of chumpy's, which the reader must not import."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    leaf, select = type("Ch", (), {"__module__": ch.__name__}), type("Select", (), {"__module__": reordering.__name__})
    vars(ch)["Ch"], vars(reordering)["Select"] = leaf, select
    for name, module in {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": ch, "chumpy.reordering": reordering}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return leaf, select


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_are_read_bit_by_bit(tmp_path, monkeypatch, chumpy, protocol):
    from scipy.sparse import csc_matrix

    value = arrays()
    stored = dict(value)
    stored["J_regressor"] = csc_matrix(value["J_regressor"])
    stored["weights"] = np.asfortranarray(value["weights"])
    stored["posedirs"] = value["posedirs"].astype(">f8")
    leaf, select = chumpy[0](), chumpy[1]()
    leaf.x = value["v_template"]
    order = np.random.default_rng(1).permutation(value["shapedirs"].size)
    source = chumpy[0]()
    source.x = np.empty(value["shapedirs"].size)
    source.x[order] = value["shapedirs"].ravel()
    select.a, select.idxs, select.preferred_shape = source, order, value["shapedirs"].shape
    stored |= {"v_template": leaf, "shapedirs": select}
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(stored, protocol))
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    mano = read_mano(path)
    for name, key in {"vertices": "v_template", "faces": "f", "weights": "weights", "joint_regressor": "J_regressor",
                      "shape_offsets": "shapedirs", "pose_offsets": "posedirs", "pose_components": "hands_components",
                      "pose_mean": "hands_mean"}.items():  # fmt: skip
        np.testing.assert_array_equal(getattr(mano, name).numpy(), value[key])
    assert mano.parents[:5] == (-1, 0, 1, 2, 0)
    assert mano.vertices.dtype == torch.float64


class Code:
    """A pickle of this calls a function when it is loaded."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_refused_and_not_run(tmp_path, protocol):
    target = tmp_path / "made"
    value = arrays() | {"J": Code(open, str(target), "w")}
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(HiddenCodeError, match=r"names (_?io|builtins|__builtin__)\.open, which could run code") as caught:
        read_mano(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not target.exists()


def test_hidden_calls_of_allowed_names_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    # The array type is called with the result of another call as function.
    path.write_bytes(b"cnumpy\nndarray\n(tR(tR.")
    with pytest.raises(HiddenCodeError, match="calls something that is not an array"):
        read_arrays(path)
    path.write_bytes(b"(dS'a'\ncos\nsystem\n(S'true'\ntRs.")
    with pytest.raises(HiddenCodeError, match=r"names os\.system"):
        read_arrays(path)
    path.write_bytes(b"(ios\nsystem\n.")  # INST: imports and calls
    with pytest.raises(HiddenCodeError, match="uses INST"):
        read_arrays(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "MANO_RIGHT.pkl"
    with pytest.raises(MissingFileError, match="does not exist; want a pickle of arrays"):
        read_mano(path)
    good = pickle.dumps(arrays(), 2)
    for content, problem in (
        (b"", "damaged"),
        (b"hello", "damaged"),
        (good[:-2000], "damaged"),
        (pickle.dumps([1, 2]), "holds a list, want a dictionary"),
        (pickle.dumps({"a": 1}), "lacks v_template, f, weights"),
        (pickle.dumps(arrays() | {"f": np.zeros((5, 3), int)}), r"holds int64 \(5, 3\), want numbers of shape \(1538, 3\)"),
        (pickle.dumps(arrays() | {"f": np.full((1538, 3), 778)}), "has a face with vertex 778"),
        (pickle.dumps(arrays() | {"hands_mean": np.full(45, np.nan)}), "not finite"),
        (pickle.dumps(arrays() | {"hands_mean": "x"}), "holds str, want numbers"),
        (pickle.dumps(arrays() | {"hands_mean": np.array([None] * 45)}), "an array of object"),
        (pickle.dumps(arrays() | {"kintree_table": np.zeros((2, 16)) + 3}), "want earlier joints"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=problem) as caught:
            read_mano(path)
        assert "\n" not in str(caught.value)


def test_lists_that_grow_exponentially_are_refused(tmp_path):
    value: list = []
    for _ in range(60):
        value = [value, value]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": value}, 2))
    with pytest.raises(FileFormatError, match="more than 1048576 values"):
        read_arrays(tmp_path / "x.pkl")


def test_lists_that_hold_themselves_are_refused(tmp_path):
    value: list = []
    value.append(value)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": value}, 2))
    with pytest.raises(FileFormatError, match="damaged or not a pickle of arrays"):
        read_arrays(tmp_path / "x.pkl")
