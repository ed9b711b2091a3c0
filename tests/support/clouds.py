"""Small data for the rotation experiments."""

import numpy as np

from vision3d.io.bvh import write_motion


def drawn_clouds(count, points=40, seed=0):
    """Clouds without symmetry: axes of three lengths, each with a knob at one end."""
    random = np.random.default_rng(seed)
    clouds = random.normal(size=(count, points, 3)) * (0.05, 0.03, 0.02)
    for axis, place in enumerate((0.4, 0.3, 0.2)):
        clouds[:, axis::4, axis] += place * random.uniform(0.8, 1.2, size=(count, 1))
    return clouds.astype(np.float16)


def write_clouds(path, count=12, held_out=4, **changes):
    """Writes an .npz with such clouds."""
    arrays = {"train": drawn_clouds(count), "test": drawn_clouds(held_out, seed=1)} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def write_cloud_folder(folder, train=3, test=2, points=40):
    """Writes the layout of the code of Zhou et al.; test clouds have the other suffix and two points more."""
    for name, count, seed in (("points", train, 0), ("points_test", test, 1)):
        (folder / name).mkdir(parents=True)
        for i, cloud in enumerate(drawn_clouds(count, points + 2 * seed, seed)):
            suffix = ".xyz" if seed and i == 0 else ".pts"
            np.savetxt(folder / name / f"{i}{suffix}", cloud, fmt="%.5f")
    return folder


def drawn_motion(poses=40, seed=0, names=("Hips", "Spine", "Head", "LeftLeg", "LeftFoot", "RightLeg", "RightFoot"), bone=10.0):
    """A small skeleton that swings its limbs, y up, in units of decimeters."""
    import torch

    from vision3d.geometry.rotation import rotvec_to_quat
    from vision3d.scene.motion import Motion, Skeleton

    offsets = torch.tensor([[0, 0, 0], [0, 2, 0], [0, 3, 0], [1, -1, 0], [0, -4, 0], [-1, -1, 0], [0, -4.0, 0]]) * bone / 10
    skeleton = Skeleton(names, (-1, 0, 1, 0, 3, 0, 5), offsets)
    generator = torch.Generator().manual_seed(seed)
    times = torch.arange(poses, dtype=torch.float64) / 30
    speeds = 1 + 4 * torch.rand(len(names), 3, generator=generator)
    phases = 6 * torch.rand(len(names), 3, generator=generator)
    vectors = 0.5 * torch.sin(times[:, None, None].float() * speeds + phases)
    return Motion(skeleton, times, rotvec_to_quat(vectors), torch.zeros(poses, 3))


def write_clip(path, **options):
    """Writes a .bvh of it."""
    write_motion(path, drawn_motion(**options))
    return path
