"""The verbs of the program, one row each: name -> (module, what it does). A module is imported when its verb runs."""

VERBS: dict[str, tuple[str, str]] = {
    "fit": ("vision3d.cli.fit", "fit a scene of Gaussians to photographs with cameras"),
    "doctor": ("vision3d.cli.doctor", "say what works on this machine, and how to mend what does not"),
    "render": ("vision3d.cli.render", "make pictures or a video of a scene, from given cameras or along a path"),
}
