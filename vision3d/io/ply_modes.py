"""The rendering mode of a scene, as comments in the header of a Gaussian .ply."""

from vision3d.scene.gaussians import GaussianScene, SplatMode


def mode_comments(scene: GaussianScene) -> list[str]:
    """Header comments with the writing program and the rendering mode."""
    comments = ["written by vision3d"]
    if scene.antialiased or scene.mode == "2dgs":
        comments.append(f"SplatRenderMode: {'2dgs' if scene.mode == '2dgs' else 'mip'}")
    if scene.mode == "flat":
        comments.append("Vision3dMode: flat")
    return comments


def read_mode(comments: list[str], num_scales: int) -> tuple[SplatMode, bool]:
    """Mode and antialiasing from the comments of a header, or from the number of scales."""
    tags = dict(comment.replace(" ", "").split(":", 1) for comment in comments if ":" in comment)
    rendering = tags.get("SplatRenderMode", "")
    if tags.get("Vision3dMode") == "flat":
        return "flat", rendering == "mip"
    return ("2dgs" if rendering == "2dgs" or num_scales == 2 else "3dgs"), rendering == "mip"
