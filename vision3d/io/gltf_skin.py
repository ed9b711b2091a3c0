"""Skins, morph targets and clips of glTF 2.0 files: sections 3.7.2.2 (morphs), 3.7.3 (skins), 3.11 (animations).

Every node of the scene that moves a vertex becomes a joint, as do its ancestors; a mesh without a skin follows its node.
Quaternions are xyzw in the file.
"""

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io import glb, gltf_pose
from vision3d.io.gltf_container import Gltf
from vision3d.io.gltf_instances import instances
from vision3d.io.gltf_pose import FLOAT
from vision3d.scene.clip import Channel, Clip, Property
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.texture_atlas import merge_textured

_KEYS = {5126: (False,), 5120: (True,), 5121: (True,), 5122: (True,), 5123: (True,)}
_MAX_FPS = 1000.0
_ADDED = {"POSITION": 3, "NORMAL": 3, "_ETA": 1}
"""Attributes of morph targets that are read, with their widths; _ETA is `SkinnedMesh.etas`."""
_WIDTHS: dict[Property, int] = {"translation": 3, "rotation": 4, "scale": 3, "weights": 1}


def read_skin(path: Path | str) -> SkinnedMesh:
    """The mesh of a .glb or .gltf with its joints, morph targets and clips.

    Raises:
        MissingFileError: The file, or a file that it refers to, does not exist.
        FileFormatError: It is damaged, nothing in it is animated, or it needs an unsupported feature.
    """
    return skin_of(glb.opened(path))


def skin_of(gltf: Gltf) -> SkinnedMesh:
    """`read_skin` of an opened file."""
    try:
        with np.errstate(all="ignore"):  # the checks detect non-finite values
            return _Reader(gltf).skin().validate()
    except (FileFormatError, MissingFileError):
        raise
    except InputError as error:
        raise FileFormatError(gltf.path, str(error)) from error


class _Reader:
    """Collects joints, vertices and morphs."""

    def __init__(self, gltf: Gltf) -> None:
        self.gltf, self.path = gltf, gltf.path
        tree = gltf.tree()
        self.place = {index: i for i, (index, _) in enumerate(tree)}
        self.nodes = [index for index, _ in tree]
        self.names = [str(gltf.item("nodes", index).get("name") or f"node_{index}") for index, _ in tree]
        self.parents = [parent for _, parent in tree]
        self.locals = [gltf.transform(index) for index, _ in tree]
        self.worlds = gltf.worlds()
        self.binds: dict[int, np.ndarray] = {}  # of joints with bound vertices
        self.bound: dict[tuple[int, bytes], int] = {}  # (joint, inverse bind) -> the joint that has it
        self.copies: dict[int, int] = {}  # number of further inverse binds of a joint
        self.num_vertices = 0
        self.meshes: list[Mesh] = []
        self.influences: list[tuple[np.ndarray, np.ndarray]] = []
        # For each morph target: its number, its first vertex, and the offsets that it adds.
        self.added: dict[str, list[tuple[int, int, np.ndarray]]] = {name: [] for name in _ADDED}
        self.etas: list[np.ndarray] = []
        self.blocks: dict[int, tuple[int, int]] = {}  # node with morphs -> index of the first and their number
        self.morph_names: list[str] = []
        self.rest_weights: list[float] = []
        self.num_wrong_sums = 0

    def skin(self) -> SkinnedMesh:
        gltf, textures = self.gltf, {}
        if not (gltf.items("skins") or gltf.items("animations")) and not self._has_morphs():
            raise FileFormatError(self.path, "has neither skins, morph targets nor animations; want an animated mesh")
        for index in self.place:
            if "mesh" in gltf.item("nodes", index):
                self._add_mesh(index, textures)
        if not self.meshes:
            raise FileFormatError(self.path, "holds no triangles", "meshes")
        if self.num_wrong_sums:
            text = f"{self.path}: weights of {self.num_wrong_sums} vertices do not sum to 1 and were normalized"
            warnings.warn(text, stacklevel=4)
        mesh = merge_textured(self.meshes)
        kept = self._kept_joints()
        new = {joint: i for i, joint in enumerate(kept)}
        width = max(indices.shape[1] for indices, _ in self.influences)
        padded = [[np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts] for parts in self.influences]
        indices = np.concatenate([parts[0] for parts in padded])
        lookup = np.zeros(len(self.names), np.int64)
        lookup[kept] = range(len(kept))
        binds = [self.binds.get(joint, np.eye(4)) for joint in kept]
        values = [np.array([self.locals[joint][k] for joint in kept]).reshape(len(kept), -1) for k in range(3)]
        parts = [torch.from_numpy(value.astype(np.float32)) for value in values]
        has_etas = len(self.etas) == len(self.meshes)
        return SkinnedMesh(
            mesh,
            tuple(self.names[joint] for joint in kept),
            tuple(new.get(self.parents[joint], -1) for joint in kept),
            translations=parts[0],
            quats=parts[1],
            scales=parts[2],
            inverse_binds=torch.from_numpy(np.array(binds, np.float32).reshape(-1, 4, 4)),
            indices=torch.from_numpy(lookup[indices]),
            weights=torch.from_numpy(np.concatenate([parts[1] for parts in padded]).astype(np.float32)),
            morphs=self._all_morphs("POSITION", mesh.num_vertices),
            morph_normals=None if mesh.normals is None else self._all_morphs("NORMAL", mesh.num_vertices),
            morph_names=tuple(self.morph_names),
            rest_weights=torch.tensor(self.rest_weights) if any(self.rest_weights) else None,
            clips=self._clips(new),
            fps=self._fps(),
            etas=torch.from_numpy(np.concatenate(self.etas)) if has_etas else None,
            morph_etas=self._all_morphs("_ETA", mesh.num_vertices) if has_etas else None,
        )

    def _fps(self) -> float | None:
        """Frame rate recorded in the asset's extras by our writer; other values there are ignored."""
        extras = self.gltf.content["asset"].get("extras")
        fps = extras.get("fps") if isinstance(extras, dict) else None
        if not isinstance(fps, int | float) or isinstance(fps, bool) or not 0 < fps <= _MAX_FPS:
            return None
        return float(fps)

    def _has_morphs(self) -> bool:
        return any(
            "targets" in primitive for i in range(len(self.gltf.items("meshes"))) for primitive in self.gltf.primitives(i)
        )

    def _add_mesh(self, index: int, textures: dict) -> None:
        """Add the primitives of a node's mesh, with their joints.

        A mesh without a skin is bound at its node's rest position, so that programs without skinning show it there.
        """
        gltf, node, where = self.gltf, self.gltf.item("nodes", index), f"nodes[{index}]"
        number, matrix, copies = gltf.whole(node, "mesh", where), np.eye(4), [np.eye(4)]
        if "skin" in node:
            joints = self._joints_of(node["skin"])
        else:
            world = self.worlds[index]
            is_regular = np.linalg.matrix_rank(world[:3, :3]) == 3
            matrix = world if is_regular else matrix
            joints = [self._bound(self.place[index], np.linalg.inv(matrix))]
            copies = [matrix @ copy for copy in instances(gltf, index)]
        first = len(self.morph_names)
        primitives = gltf.primitives(number)
        counts = {len(gltf_pose.targets(gltf, primitive, number)) for primitive in primitives}
        if len(counts) > 1:
            raise FileFormatError(
                self.path, f"primitives have {sorted(counts)} morph targets; want one number", f"meshes[{number}]"
            )
        count = counts.pop() if counts else 0
        if count:
            self.blocks[index] = (first, count)
            self.morph_names += self._target_names(gltf.item("meshes", number), count)
            self.rest_weights += gltf_pose.rest_weights(gltf, node, number, count, where)
        for primitive, matrix in itertools.product(primitives, copies):
            if primitive.get("mode", 4) not in (4, 5, 6):
                continue  # points and lines
            mesh = glb.mesh_of(gltf, primitive, textures, glb.placed_at(gltf, matrix), number)
            offset = self.num_vertices
            self.num_vertices += mesh.num_vertices
            self.meshes.append(mesh)
            self.influences.append(self._influences(primitive, joints, mesh.num_vertices, "skin" in node))
            if "_ETA" in primitive["attributes"]:
                rows = gltf_pose.added(gltf, primitive["attributes"], "_ETA", 1, mesh.num_vertices, number)
                self.etas.append(rows[:, 0])
            for i, target in enumerate(gltf_pose.targets(gltf, primitive, number)):
                for name, found in self.added.items():
                    if name in target:
                        rows = gltf_pose.added(gltf, target, name, _ADDED[name], mesh.num_vertices, number)
                        found.append((first + i, offset, rows @ matrix[:3, :3].T if name == "POSITION" else rows))

    def _joints_of(self, number: Any) -> list[int]:
        nodes, binds = gltf_pose.inverse_binds(self.gltf, number)
        gltf_pose.check_joints(self.gltf, number, nodes, self.place)
        return [self._bound(self.place[node], bind) for node, bind in zip(nodes, binds)]

    def _bound(self, joint: int, bind: np.ndarray) -> int:
        """The joint with this inverse bind; if it already has another one, a new joint that moves with it."""
        if joint not in self.binds:
            self.binds[joint] = bind
            self.bound[joint, (bind + 0.0).tobytes()] = joint
            return joint
        key = joint, (bind + 0.0).tobytes()  # so that -0 is 0
        if key in self.bound:
            return self.bound[key]
        self.copies[joint] = number = self.copies.get(joint, 1) + 1
        self.bound[key] = len(self.names)
        self.nodes.append(len(self.gltf.items("nodes")) + len(self.names))
        self.names.append(f"{self.names[joint]} {number}")
        self.parents.append(joint)
        self.locals.append((np.zeros(3), np.array([1.0, 0, 0, 0]), np.ones(3)))
        self.binds[len(self.names) - 1] = bind
        return len(self.names) - 1

    def _influences(
        self, primitive: dict[str, Any], joints: list[int], count: int, is_skinned: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        if not is_skinned:
            return np.full((count, 1), joints[0], np.int64), np.ones((count, 1), np.float32)
        places, weights, num_wrong = gltf_pose.influences(self.gltf, primitive, len(joints), count)
        self.num_wrong_sums += num_wrong
        return np.array(joints)[places], weights

    def _kept_joints(self) -> list[int]:
        kept: set[int] = set()
        for joint in self.binds:
            while joint >= 0 and joint not in kept:
                kept.add(joint)
                joint = self.parents[joint]
        # Roots that do nothing are dropped; our files have one above several roots, since skins require a common one.
        animated = self._animated_nodes()
        for joint in sorted(kept):
            shift, quat, scale = self.locals[joint]
            is_still = not shift.any() and quat[0] == 1 and (scale == 1).all() and self.nodes[joint] not in animated
            if is_still and joint not in self.binds and self.parents[joint] not in kept:
                kept.discard(joint)
        # In file order if parents precede their children there, as in our own files.
        order = sorted(kept, key=lambda joint: self.nodes[joint])
        place = {joint: i for i, joint in enumerate(order)}
        is_sorted = all(place.get(self.parents[joint], -1) < i for i, joint in enumerate(order))
        return order if is_sorted else sorted(kept)

    def _animated_nodes(self) -> set[Any]:
        found = set()
        for animation in self.gltf.items("animations"):
            for entry in self._list(animation, "channels", "animations"):
                target = entry.get("target")
                node = target.get("node") if isinstance(target, dict) else None
                found |= {node} if isinstance(node, int) else set()
        return found

    def _target_names(self, mesh: dict[str, Any], count: int) -> list[str]:
        extras = mesh.get("extras")
        names = extras.get("targetNames") if isinstance(extras, dict) else None
        if isinstance(names, list) and len(names) == count:
            return [str(name) for name in names]
        return [f"morph_{len(self.morph_names) + i}" for i in range(count)]

    def _all_morphs(self, name: str, num_vertices: int) -> torch.Tensor | None:
        """Offsets of all targets; None if no target has any (except for positions)."""
        if not self.morph_names or (name != "POSITION" and not self.added[name]):
            return None
        self.gltf.allot(4 * _ADDED[name] * len(self.morph_names) * num_vertices, "morph targets")
        result = np.zeros((len(self.morph_names), num_vertices, _ADDED[name]), np.float32)
        for number, offset, added in self.added[name]:
            result[number, offset : offset + len(added)] = added
        return torch.from_numpy(result if _ADDED[name] > 1 else result[..., 0])

    def _clips(self, new: dict[int, int]) -> tuple[Clip, ...]:
        clips, used = [], set()
        last: dict[str, int] = {}  # numbers of clips with the same name
        for number, animation in enumerate(self.gltf.items("animations")):
            base = name = str(animation.get("name") or f"clip_{number}")
            while name in used:
                last[base] = last.get(base, 1) + 1
                name = f"{base} {last[base]}"
            used.add(name)
            where = f"animations[{number}]"
            channels: list[Channel] = []
            for entry in self._list(animation, "channels", where):
                channel = self._channel(animation, entry, new, where)
                if channel is not None:
                    channels = self._joined(channels, channel, where)
            channels = [self._with_others(channel, animation) for channel in channels]
            try:
                clips.append(Clip(name, tuple(channel.validate() for channel in channels)))
            except InputError as error:
                raise FileFormatError(self.path, str(error), where) from error
        return tuple(clips)

    def _channel(self, animation: dict[str, Any], entry: dict[str, Any], new: dict[int, int], where: str) -> Channel | None:
        """The channel, or None if it animates nothing in this mesh."""
        target = entry.get("target")
        given, node = (target.get("path"), target.get("node")) if isinstance(target, dict) else (None, None)
        path: Property | None = next((name for name in _WIDTHS if name == given), None)
        if path is None or not isinstance(node, int):
            return None  # from an extension
        joint = new.get(self.place.get(node, -1), -1)
        block = self.blocks.get(node)
        if (block is None) if path == "weights" else joint < 0:
            return None
        samplers = self._list(animation, "samplers", where)
        sampler = samplers[self.gltf.whole(entry, "sampler", where, high=len(samplers) - 1)]
        kind = sampler.get("interpolation", "LINEAR")
        if kind not in ("LINEAR", "STEP", "CUBICSPLINE"):
            raise FileFormatError(self.path, f"interpolation is {str(kind)[:40]!r}", where)
        times = self.gltf.array(sampler.get("input"), (1,), FLOAT)[:, 0].astype(np.float64)
        values = self.gltf.array(sampler.get("output"), (_WIDTHS[path],), _KEYS).astype(np.float32)
        width = block[1] if path == "weights" and block else _WIDTHS[path]
        shape = (len(times), 3, width) if kind == "CUBICSPLINE" else (len(times), width)
        if values.size != np.prod(shape):
            text = f"a sampler has {len(values)} outputs for {len(times)} times, want {int(np.prod(shape)) // _WIDTHS[path]}"
            raise FileFormatError(self.path, text, where)
        keys = torch.from_numpy(values.reshape(shape))
        if path == "rotation":
            keys = keys.roll(1, -1)
            if kind != "CUBICSPLINE":
                keys = gltf_pose.unit(keys.double()).float()
        elif path == "weights" and block:
            self.gltf.allot(4 * int(np.prod(shape[:-1])) * len(self.morph_names), where)
            wide = torch.zeros(*shape[:-1], len(self.morph_names))
            wide[..., block[0] : block[0] + width] = keys
            keys, joint = wide, -1
        return Channel(path, joint, torch.from_numpy(times), keys, kind)

    def _joined(self, channels: list[Channel], channel: Channel, where: str) -> list[Channel]:
        """The channels with another one added; weights of several meshes are merged into one channel."""
        for i, other in enumerate(channels if channel.path == "weights" else []):
            if other.path != "weights":
                continue
            if other.interpolation != channel.interpolation or not torch.equal(other.times, channel.times):
                text = "moves the morph targets of several meshes by keys at different times, which is not read"
                raise FileFormatError(self.path, text, where)
            return [*channels[:i], replace(other, values=other.values + channel.values), *channels[i + 1 :]]
        return [*channels, channel]

    def _with_others(self, channel: Channel, animation: dict[str, Any]) -> Channel:
        """Weights with default values for meshes that the animation does not change."""
        if channel.path != "weights" or not any(self.rest_weights):
            return channel
        rest, values = torch.tensor(self.rest_weights), channel.values.clone()
        targets = [entry.get("target") for entry in animation.get("channels", [])]
        for target in targets:
            if isinstance(target, dict) and target.get("path") == "weights" and target.get("node") in self.blocks:
                first, count = self.blocks[target["node"]]
                rest[first : first + count] = 0
        keys = values[:, 1] if channel.interpolation == "CUBICSPLINE" else values
        keys += rest
        return replace(channel, values=values)

    def _list(self, values: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
        found = values.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise FileFormatError(self.path, f"{key} is not a list of objects", where)
        return found
