"""A .ksplat writer for tests, from the format's layout: one section, buckets of 256, the last one partly filled."""

import struct

import numpy as np

SH0 = 0.28209479177387814
BLOCK, CAPACITY, RANGE = 16.0, 256, 1.5


def ksplat_bytes(scene, level):
    """Bytes of a .ksplat; positions must be within 8 m of the origin."""
    count, degree = len(scene), scene.sh_degree
    kinds = [("<f4", "<f4", "<f4"), ("<u2", "<f2", "<f2"), ("<u2", "<f2", "u1")][level]
    num_rest = 3 * ((degree + 1) ** 2 - 1)
    fields = [("p", kinds[0], 3), ("s", kinds[1], 3), ("q", kinds[1], 4), ("c", "u1", 4), ("h", kinds[2], num_rest)]
    rows = np.empty(count, fields)
    centers = np.arange(3 * -(-count // CAPACITY), dtype=np.float32).reshape(-1, 3) / 100
    means = scene.means.numpy()
    if level:
        means = np.rint((means - centers[np.arange(count) // CAPACITY]) / (BLOCK / 2 / 32767)) + 32767
    rows["p"], rows["s"], rows["q"] = means, scene.scales.numpy(), scene.quats.numpy()
    rows["c"][:, :3] = np.clip(np.rint((scene.sh[:, 0].numpy() * SH0 + 0.5) * 255), 0, 255)
    rows["c"][:, 3] = np.rint(scene.opacities.numpy() * 255)
    bands = [scene.sh[:, l * l : (l + 1) ** 2].numpy().transpose(0, 2, 1).reshape(count, -1) for l in range(1, degree + 1)]
    if bands:
        rest = np.concatenate(bands, 1)
        rows["h"] = np.rint((rest + RANGE) / (2 * RANGE) * 255) if level == 2 else rest
    head = bytearray(4096 + 1024)
    head[:2] = 0, 1
    struct.pack_into("<5I", head, 4, 1, 1, count, count, level)
    struct.pack_into("<2f", head, 36, -RANGE, RANGE)
    full, partial = (count // CAPACITY, int(count % CAPACITY > 0)) if level else (0, 0)
    struct.pack_into("<4IfHxxI", head, 4096, count, count, CAPACITY, full + partial, BLOCK, 12, 32767)
    struct.pack_into("<2IH", head, 4096 + 32, full, partial, degree)
    sizes = np.full(partial, count % CAPACITY, "<u4")
    return bytes(head) + sizes.tobytes() + centers[: full + partial].tobytes() + rows.tobytes()
