"""The stages of vision3d, each in a folder named like its verb."""

from vision3d.core.lazy import move_modules

_OLD = {"fitting": "fit", "meshing": "mesh", "physics": "simulate", "animation": "animate", "rotations": "rotation"}
_PHYSICS = {
    "laws": "materials.laws",
    "materials": "materials.functions",
    "particles": "world.particles",
    "world": "world.world",
    "boundaries": "world.boundaries",
    "reference.mpm": "engines.mpm",
    "reference": "engines",
    "setup": "setup.builder",
    "frame": "output.frame",
}
_IMAGES = {
    "animate.rig.pictures": "animate.rig.images",
    "animate.static.pictures": "animate.static.images",
    "equivariant.pictures": "equivariant.images",
    "rotation.pictures": "rotation.plots",
    "simulate.output.course": "simulate.output.plots",
}

move_modules(
    {f"{__name__}.{old}": f"{__name__}.{new}" for old, new in _OLD.items()}
    | {f"{__name__}.physics.{old}": f"{__name__}.simulate.{new}" for old, new in _PHYSICS.items()}
    | {f"{__name__}.{old}": f"{__name__}.{new}" for old, new in _IMAGES.items()}
)
