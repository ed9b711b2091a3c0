"""The verbs of the program, one row each: name -> (module, description). A module is imported when its verb runs."""

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("vision3d.cli.fit", "fit a Gaussian scene to photos with cameras"),
    "eval": ("vision3d.cli.eval", "evaluate a scene (.ply) on held-out photos"),
    "doctor": ("vision3d.cli.doctor", "check the installation and print fixes"),
    "convert": (
        "vision3d.cli.convert",
        "convert Gaussian scenes, meshes and points between formats: .ply, .spz, .sog, .splat, .glb and more",
    ),
    "demo": ("vision3d.cli.demo", "train on the bundled photos for 2 minutes and report held-out quality"),
    "info": ("vision3d.cli.info", "inspect a scene, a cameras file, a data set or a run folder"),
    "reproduce": ("vision3d.cli.reproduce", "reproduce an experiment of a paper: affnist, rotation"),
    "render": ("vision3d.cli.render", "render images or a video of a scene, from given cameras or along a path"),
    "view": ("vision3d.cli.view", "view scenes, meshes, points, sequences and runs in a window or a browser"),
    "simulate": ("vision3d.cli.simulate", "simulate a scene, or parts of it, by physics: jelly, sand, water and more"),
    "animate": ("vision3d.cli.animate", "animate objects by skinning: static, fit, rig, eval"),
    "detect": ("vision3d.cli.detect", "find objects in LiDAR sweeps: run, eval, train, check, synth"),
    "hand": ("vision3d.cli.hand", "find hands in images and videos: run, eval, train, synth, export"),
    "edit": ("vision3d.cli.edit", "change objects by text: run, eval, train, train-planes, train-vae, train-diffusion"),
    "mesh": ("vision3d.cli.mesh", "extract a textured triangle mesh from a scene"),
}
