"""The verbs of the program, one row each: name -> (module, what it does). A module is imported when its verb runs."""

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("vision3d.cli.fit", "fit a scene of Gaussians to photographs with cameras"),
    "eval": ("vision3d.cli.eval", "measure a scene (.ply) on photographs that were held out"),
    "doctor": ("vision3d.cli.doctor", "say what works on this machine, and how to mend what does not"),
    "convert": ("vision3d.cli.convert", "write scenes of Gaussians in other formats: .ply, .spz, .sog, .splat, .glb and more"),
    "demo": ("vision3d.cli.demo", "fit the photo set that comes along: figures, a contact sheet and a video in 4 minutes"),
    "info": ("vision3d.cli.info", "say what is in a scene, a cameras file, a data set or a run folder"),
    "reproduce": ("vision3d.cli.reproduce", "run an experiment of a paper: affnist, rotation"),
    "render": ("vision3d.cli.render", "make pictures or a video of a scene, from given cameras or along a path"),
    "view": ("vision3d.cli.view", "look at scenes, meshes, points, sequences and runs in a window or a browser"),
    "simulate": ("vision3d.cli.simulate", "let a scene, or parts of it, move by physics: jelly, sand, water and more"),
    "animate": ("vision3d.cli.animate", "objects that move by skinning: static, fit, rig, eval"),
    "mesh": ("vision3d.cli.mesh", "make a triangle mesh with a texture out of a scene"),
}
