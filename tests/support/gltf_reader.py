"""An independent reader of animated .glb files, from the specification and scipy only, without vision3d."""

import json
import struct
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation, Slerp

_TYPES = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Animated:
    """The first mesh of a .glb, whose node may have a skin, and the clips by name."""

    def __init__(self, path: Path) -> None:
        data = Path(path).read_bytes()
        size = struct.unpack_from("<I", data, 12)[0]
        self.json, self.binary = json.loads(data[20 : 20 + size]), data[28 + size :]
        self.clips = {clip["name"]: clip for clip in self.json.get("animations", [])}
        self.node = next(i for i, node in enumerate(self.json["nodes"]) if "mesh" in node)

    def array(self, index: int) -> np.ndarray:
        """The values of an accessor."""
        accessor = self.json["accessors"][index]
        view, width = self.json["bufferViews"][accessor["bufferView"]], _WIDTHS[accessor["type"]]
        kind = np.dtype(_TYPES[accessor["componentType"]])
        step = view.get("byteStride", kind.itemsize * width)
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        strides = (step, kind.itemsize)
        return np.ndarray((accessor["count"], width), kind, self.binary, start, strides).astype(np.float64)

    def vertices(self, clip: str | None, time: float) -> np.ndarray:
        """Vertex positions; without a clip, in the rest pose."""
        locals_ = [self._rest(node) for node in self.json["nodes"]]
        mesh = self.json["meshes"][self.json["nodes"][self.node]["mesh"]]
        morphs = self.json["nodes"][self.node].get("weights", mesh.get("weights"))
        for channel in [] if clip is None else self.clips[clip]["channels"]:
            node, path = channel["target"]["node"], channel["target"]["path"]
            sampler = self.clips[clip]["samplers"][channel["sampler"]]
            value = self._sample(sampler, path, time)
            if path == "weights":
                morphs = value
            else:
                locals_[node][path] = value
        primitive = mesh["primitives"][0]
        points = self.array(primitive["attributes"]["POSITION"])
        if morphs is not None:
            for weight, target in zip(morphs, primitive["targets"]):
                points = points + weight * self.array(target["POSITION"])
        world = self._world(locals_)
        if "skin" not in self.json["nodes"][self.node]:
            return points @ world[self.node][:3, :3].T + world[self.node][:3, 3]
        skin = self.json["skins"][self.json["nodes"][self.node]["skin"]]
        binds = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        matrices = np.array([world[node] @ bind for node, bind in zip(skin["joints"], binds)])
        result = np.zeros_like(points)
        for n in range(4):
            if f"JOINTS_{n}" not in primitive["attributes"]:
                break
            joints = self.array(primitive["attributes"][f"JOINTS_{n}"]).astype(int)
            weights = self.array(primitive["attributes"][f"WEIGHTS_{n}"])
            for k in range(4):
                found = matrices[joints[:, k]]
                moved = np.einsum("vij,vj->vi", found[:, :3, :3], points) + found[:, :3, 3]
                result += weights[:, k : k + 1] * moved
        return result

    def _rest(self, node: dict) -> dict:
        return {
            "translation": np.array(node.get("translation", [0, 0, 0]), float),
            "rotation": np.array(node.get("rotation", [0, 0, 0, 1]), float),
            "scale": np.array(node.get("scale", [1, 1, 1]), float),
        }

    def _world(self, locals_: list[dict]) -> list[np.ndarray]:
        parents = {child: i for i, node in enumerate(self.json["nodes"]) for child in node.get("children", [])}
        found = []
        for i in range(len(locals_)):
            matrix, node = np.eye(4), i
            while node is not None:
                local = np.eye(4)
                local[:3, :3] = Rotation.from_quat(locals_[node]["rotation"]).as_matrix() * locals_[node]["scale"]
                local[:3, 3] = locals_[node]["translation"]
                matrix, node = local @ matrix, parents.get(node)
            found.append(matrix)
        return found

    def _sample(self, sampler: dict, path: str, time: float) -> np.ndarray:
        times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"])
        time = min(max(time, times[0]), times[-1])
        kind = sampler.get("interpolation", "LINEAR")
        keys = values.reshape(len(times), 3 if kind == "CUBICSPLINE" else 1, -1)
        before = max(0, int(np.searchsorted(times, time, "right")) - 1)
        if kind == "STEP" or len(times) == 1:
            return keys[before, 0]
        before = min(before, len(times) - 2)
        pair = slice(before, before + 2)
        if kind == "CUBICSPLINE":
            slopes = np.array([keys[before, 2], keys[before + 1, 0]])
            return CubicHermiteSpline(times[pair], keys[pair, 1], slopes)(time)
        if path == "rotation":
            return Slerp(times[pair], Rotation.from_quat(keys[pair, 0]))(time).as_quat()
        share = (time - times[before]) / (times[before + 1] - times[before])
        return (1 - share) * keys[before, 0] + share * keys[before + 1, 0]
