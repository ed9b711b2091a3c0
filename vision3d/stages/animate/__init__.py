"""Animation by skinning, after DreamMesh4D (Li et al. 2024, arXiv 2410.06756); subpackages list the differences."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.animate.dynamic.config import AnimateConfig
    from vision3d.stages.animate.dynamic.footage import Footage, read_footage
    from vision3d.stages.animate.dynamic.run import AnimateResult, animate
    from vision3d.stages.animate.dynamic.tracking import fit_vertices
    from vision3d.stages.animate.evaluation.config import EvalConfig
    from vision3d.stages.animate.evaluation.run import ClipsEvaluation, evaluate_clips
    from vision3d.stages.animate.rig.config import RigConfig
    from vision3d.stages.animate.rig.run import RigResult, play_skin
    from vision3d.stages.animate.static.config import StaticConfig
    from vision3d.stages.animate.static.run import StaticResult, bind_gaussians

__all__ = [
    "AnimateConfig",
    "AnimateResult",
    "ClipsEvaluation",
    "EvalConfig",
    "Footage",
    "RigConfig",
    "RigResult",
    "StaticConfig",
    "StaticResult",
    "animate",
    "bind_gaussians",
    "evaluate_clips",
    "fit_vertices",
    "play_skin",
    "read_footage",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AnimateConfig": ".dynamic.config",
        "AnimateResult": ".dynamic.run",
        "Footage": ".dynamic.footage",
        "animate": ".dynamic.run",
        "fit_vertices": ".dynamic.tracking",
        "read_footage": ".dynamic.footage",
        "ClipsEvaluation": ".evaluation.run",
        "EvalConfig": ".evaluation.config",
        "evaluate_clips": ".evaluation.run",
        "RigConfig": ".rig.config",
        "RigResult": ".rig.run",
        "play_skin": ".rig.run",
        "StaticConfig": ".static.config",
        "StaticResult": ".static.run",
        "bind_gaussians": ".static.run",
    },
)
