"""vision3d: reconstruct, animate, simulate and edit 3D scenes from photos.

Public names are loaded on first use, so that `import vision3d` takes milliseconds and never compiles anything.
"""

from vision3d.core.lazy import lazy_names, move_modules

__version__ = "0.1.0"
TYPE_CHECKING = False  # importing typing would take 5 ms

_CORE = (
    "atomic caches checkpoints config device errors install lazy machine native op_checks op_records option_marks plain "
    "plugins progress ranges run_files run_lock runs torch_private"
)
_MOTION = ("skin_fit", "retarget", "humanoid", "joint_names")
_BAKING = {"views": "views", "stereo": "stereo", "atlas": "atlas", "baking": "texels"}

move_modules(
    {f"vision3d.{name}": f"vision3d.core.{name}" for name in _CORE.split()}
    | {f"vision3d.scene.{name}": f"vision3d.optim.motion.{name}" for name in _MOTION}
    | {f"vision3d.stages.mesh.{old}": f"vision3d.render.baking.{new}" for old, new in _BAKING.items()}
    | {
        "vision3d.optim.evaluation": "vision3d.training.evaluation",
        "vision3d.render.meshes.pictures": "vision3d.render.meshes.drawing",
        "vision3d.viewer.lines": "vision3d.scene.lines",
        "vision3d.viewer.picture": "vision3d.viewer.drawing",
    }
)

_PUBLIC = {
    "rasterize": "vision3d.render.splats",
    "rasterize_2dgs": "vision3d.render.splats",
    "fit": "vision3d.stages.fit",
    "evaluate": "vision3d.stages.fit",
    "render_scene": "vision3d.render",
    "mesh": "vision3d.stages.mesh:mesh_scene",
    "AnimateConfig": "vision3d.stages.animate",
    "DetectConfig": "vision3d.stages.detect",
    "EditConfig": "vision3d.stages.edit",
    "FitConfig": "vision3d.stages.fit",
    "HandConfig": "vision3d.stages.hand",
    "MeshConfig": "vision3d.stages.mesh",
    "SimulateConfig": "vision3d.stages.simulate",
    "animate": "vision3d.stages.animate",
    "detect": "vision3d.stages.detect",
    "edit": "vision3d.stages.edit",
    "hand": "vision3d.stages.hand",
    "simulate": "vision3d.stages.simulate",
    "simulate_frames": "vision3d.stages.simulate",
    "play_skin": "vision3d.stages.animate",
    "render_views": "vision3d.render",
    "load": "vision3d.scene",
    "view": "vision3d.viewer",
    "Cameras": "vision3d.scene",
    "PosedImages": "vision3d.scene",
    "GaussianScene": "vision3d.scene",
    "Mesh": "vision3d.scene",
    "MeshGaussians": "vision3d.scene",
    "Boxes": "vision3d.scene",
    "Selection": "vision3d.scene",
    "FrameSequence": "vision3d.scene",
    "Region": "vision3d.scene",
    "PointCloud": "vision3d.scene",
    "Scene": "vision3d.scene",
    "Motion": "vision3d.scene",
    "Skeleton": "vision3d.scene",
    "SkinnedMesh": "vision3d.scene",
    "Clip": "vision3d.scene",
    "Triplane": "vision3d.scene",
}

__all__ = [*sorted(_PUBLIC), "__version__"]

if TYPE_CHECKING:
    from vision3d.render import render_scene, render_views
    from vision3d.render.splats import rasterize, rasterize_2dgs
    from vision3d.scene import (
        Boxes,
        Cameras,
        Clip,
        FrameSequence,
        GaussianScene,
        Mesh,
        MeshGaussians,
        Motion,
        PointCloud,
        PosedImages,
        Region,
        Scene,
        Selection,
        Skeleton,
        SkinnedMesh,
        Triplane,
        load,
    )
    from vision3d.stages.animate import AnimateConfig, animate, play_skin
    from vision3d.stages.detect import DetectConfig, detect
    from vision3d.stages.edit import EditConfig, edit
    from vision3d.stages.fit import FitConfig, evaluate, fit
    from vision3d.stages.hand import HandConfig, hand
    from vision3d.stages.mesh import MeshConfig, mesh_scene as mesh
    from vision3d.stages.simulate import SimulateConfig, simulate, simulate_frames
    from vision3d.viewer import view


__getattr__ = lazy_names(
    __name__,
    _PUBLIC,
    moved={"mesh_scene": "vision3d:mesh", "Skin": "vision3d:SkinnedMesh", "Sequence": "vision3d:FrameSequence"},
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
