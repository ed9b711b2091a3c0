"""Gaussians on a mesh as parameters with an optimizer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.optim.schedules import exponential_decay
from vision3d.scene import MeshGaussians
from vision3d.stages.animate.static.config import StaticConfig
from vision3d.stages.animate.static.surface import Seamless

_BETAS = (0.9, 0.99)  # as in DreamMesh4D
_FAINT = 1e-3  # eps of Adam: damps gradients below this fraction of an even share of the loss
_LARGEST = 1.5  # maximum in-plane standard deviations, relative to the longest edge of the face


class StaticModel:
    """Parameters of Gaussians on a mesh: scales, rotations, opacities, colors, and vertex positions.

    Args:
        bound: Initial Gaussians.
        config: Options.
    """

    def __init__(self, bound: MeshGaussians, config: StaticConfig) -> None:
        self.bound, self.config = bound, config
        self.is_bare = bound.mesh.texture is None and bound.mesh.vertex_colors is None
        self.places = Seamless.of(bound.mesh)
        low, high = self.places.vertices.aminmax(dim=0)
        half = float((high - low).max()) / 2
        wanted = (config.sh_degree + 1) ** 2
        sh = torch.nn.functional.pad(bound.sh, (0, 0, 0, max(0, wanted - bound.sh.shape[1])))
        rates = config.rates
        values = {
            "log_scales": (bound.log_scales, rates.scales),
            "rotations": (bound.rotations, rates.rotations),
            "opacity_logits": (bound.opacity_logits, rates.opacities),
            "sh0": (sh[:, :1], rates.sh0_bare if self.is_bare else rates.sh0),
            "shN": (sh[:, 1:], rates.shN),
            "vertices": (self.places.vertices, rates.vertices * half if config.vertices else 0.0),
        }
        self.params = {name: value.detach().clone().requires_grad_() for name, (value, _) in values.items()}
        self.params["vertices"].requires_grad_(config.vertices)
        self.learning_rates = {name: rate for name, (_, rate) in values.items()}
        eps = {name: _FAINT / len(bound) for name in self.params}
        eps["vertices"] /= max(half, 1e-30)
        groups = [{"params": [self.params[name]], "lr": rate, "eps": eps[name]} for name, rate in self.learning_rates.items()]
        self.optimizer = torch.optim.Adam(groups, betas=_BETAS)
        kept = ("log_scales", "opacity_logits") if self.is_bare else ("log_scales", "opacity_logits", "sh0")
        self._start = {name: self.params[name].detach().clone() for name in kept}
        corners = bound.mesh.vertices[bound.mesh.faces[bound.face_ids]].detach()
        edges = torch.linalg.vector_norm(corners - corners.roll(1, 1), dim=-1).amax(1)
        self.log_largest = (_LARGEST * edges).clamp(min=1e-7).log()[:, None]

    @property
    def vertices(self) -> Float[Tensor, "p 3"]:
        """Positions of the vertices, with seams closed [m]."""
        return self.params["vertices"]

    def gaussians(self) -> MeshGaussians:
        """The current Gaussians, differentiable."""
        p, mesh = self.params, self.bound.mesh
        if self.config.vertices:
            mesh = replace(mesh, vertices=self.vertices[self.places.place])
        return replace(
            self.bound,
            mesh=mesh,
            log_scales=p["log_scales"],
            rotations=p["rotations"],
            opacity_logits=p["opacity_logits"],
            sh=torch.cat([p["sh0"], p["shN"]], 1),
        )

    @torch.no_grad()
    def step(self, progress: float) -> None:
        """One optimizer step at this progress of the run; Gaussians are clamped to the size of their faces."""
        factor = exponential_decay(progress, self.config.rates.final)
        for group, rate in zip(self.optimizer.param_groups, self.learning_rates.values()):
            group["lr"] = rate * factor
        self.optimizer.step()
        self.params["log_scales"].clamp_(max=self.log_largest)

    def change(self) -> Float[Tensor, ""]:
        """Mean squared change since the start of log scales, opacity logits, and colors if there were any."""
        return torch.stack([(self.params[name] - start).square().mean() for name, start in self._start.items()]).sum()

    def nonfinite(self) -> str | None:
        """The name of a parameter whose gradient is not finite."""
        for name, param in self.params.items():
            if param.grad is not None and not bool(torch.isfinite(param.grad).all()):
                return name
        return None

    def finished(self) -> MeshGaussians:
        """The final Gaussians, detached: normals follow moved vertices, and a colorless mesh gets those of its Gaussians."""
        value = self.gaussians()
        value = replace(
            value, **{name: getattr(value, name).detach() for name in ("log_scales", "rotations", "opacity_logits", "sh")}
        )
        mesh = replace(value.mesh, vertices=value.mesh.vertices.detach())
        if mesh.normals is not None and self.config.vertices:
            mesh = replace(mesh, normals=vertex_normals(self.vertices.detach(), self.places.all_faces)[self.places.place])
        if self.is_bare:
            mesh = replace(mesh, vertex_colors=self._vertex_colors(value))
        return replace(value, mesh=mesh)

    def _vertex_colors(self, value: MeshGaussians) -> Tensor:
        """For each position the mean of the Gaussians on adjacent faces, weighted by distance."""
        corners = self.places.all_faces[value.face_ids].flatten()
        weights = value.barycentric.clamp(min=0).flatten()[:, None]
        colors = sh0_to_rgb(value.sh[:, 0]).clamp(0, 1).repeat_interleave(3, 0)
        sums = torch.zeros_like(self.places.vertices).index_add(0, corners, weights * colors)
        total = torch.zeros_like(sums[:, :1]).index_add(0, corners, weights)
        return torch.where(total > 0, sums / total.clamp(min=1e-12), 0.5)[self.places.place]

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume."""
        moments = self.optimizer.state_dict()["state"]
        return {"params": {name: param.detach().clone() for name, param in self.params.items()}, "moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(state["params"][name])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["moments"], "param_groups": groups})
