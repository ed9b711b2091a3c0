"""Gaussian scenes: N anisotropic Gaussians with opacity and view-dependent color."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.geometry.covariance import quat_scale_to_covar
from vision3d.geometry.neighbors import neighbor_distance
from vision3d.geometry.spherical_harmonics import rgb_to_sh0, rotate_sh
from vision3d.scene import codecs
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, moved, span
from vision3d.scene.selection import Rows, rows_of
from vision3d.scene.similarity import Similarity

SplatMode = Literal["3dgs", "2dgs", "flat"]

FLAT_LOG_SCALE = math.log(1e-8)
"""Log scale [log m] of the third axis of a 2D Gaussian, for modes 2dgs and flat."""
_MIN_SCALE = 1e-7  # meters


@dataclass(frozen=True, eq=False)
class GaussianScene:
    """N Gaussians with covariance R diag(scales)^2 R^T (Kerbl et al. 2023, eq. 6), stored before activation.

    Example:
        >>> scene = GaussianScene.from_points(torch.rand(100, 3), torch.rand(100, 3))
        >>> scene.save("scene.ply")
        >>> GaussianScene.load("scene.ply").num_gaussians
        100
    """

    means: Float[Tensor, "n 3"]
    """Centers in the world [m]."""
    quats: Float[Tensor, "n 4"]
    """Rotations, order wxyz, any length > 0."""
    log_scales: Float[Tensor, "n 3"]
    """Natural logarithm of the standard deviations [log m]; the third is not used by 2dgs and is tiny in flat."""
    opacity_logits: Float[Tensor, " n"]
    """Opacity before the sigmoid."""
    sh: Float[Tensor, "n k 3"]
    """Spherical harmonics of the color minus 0.5, k = (degree + 1)^2 with degree 0 to 4."""
    mode: SplatMode = "3dgs"
    """How to render: 3dgs (ellipsoids), 2dgs (2D Gaussians, Huang et al. 2024), flat (ellipsoids with vanishing third axis)."""
    antialiased: bool = False
    """Whether the opacities were fitted with the screen-space compensation of Mip-Splatting."""
    labels: Int64[Tensor, " n"] | None = None
    """One integer per Gaussian, for example of a part."""

    def __post_init__(self) -> None:
        check_shape("GaussianScene.means", self.means, ("N", 3))
        count = len(self.means)
        check_shape("GaussianScene.quats", self.quats, (count, 4))
        check_shape("GaussianScene.log_scales", self.log_scales, (count, 3))
        check_shape("GaussianScene.opacity_logits", self.opacity_logits, (count,))
        check_shape("GaussianScene.sh", self.sh, (count, "K", 3))
        if self.sh.shape[1] not in (1, 4, 9, 16, 25):
            raise ShapeError("GaussianScene.sh", tuple(self.sh.shape), "K = 1, 4, 9, 16 or 25 (degree 0 to 4)")
        if self.mode not in ("3dgs", "2dgs", "flat"):
            raise InputError(f"GaussianScene.mode: got {self.mode!r}, want '3dgs', '2dgs' or 'flat'")
        if self.labels is not None:
            check_shape("GaussianScene.labels", self.labels, (count,), kind="int64")
        check_device("GaussianScene", self._tensors())

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "n 3"],
        colors: Float[Tensor, "n 3"] | None = None,
        *,
        sh_degree: int = 3,
        opacity: float = 0.1,
        scale_factor: float = 1.0,
        mode: SplatMode = "3dgs",
        antialiased: bool = False,
        generator: torch.Generator | None = None,
    ) -> "GaussianScene":
        """One round Gaussian per point, with the spacing of the points as its size (Kerbl et al. 2023, section 5.1).

        Args:
            points: Centers [m].
            colors: In [0, 1]; gray when None.
            sh_degree: Degree 0 to 4 of the harmonics; those above 0 start at zero.
            opacity: In (0, 1), the same for all.
            scale_factor: Standard deviation relative to the root mean square distance to the 3 nearest other points.
            mode: See the field; the third axis of 2D Gaussians is 1e-8 m.
            antialiased: See the field.
            generator: Draws random rotations; without one all rotations are the identity.

        Raises:
            ShapeError: Points or colors are not (N, 3).
            InputError: No points, some are not finite, or an argument is out of range.
        """
        check_shape("points", points, ("N", 3))
        count = len(points)
        if count == 0:
            raise InputError("points: got none, want at least one")
        check_finite("from_points", "points", points)
        if colors is None:
            colors = torch.full_like(points, 0.5)
        check_shape("colors", colors, (count, 3))
        if not 0 < opacity < 1 or not 0 <= sh_degree <= 4 or not scale_factor > 0:
            raise InputError(
                f"from_points: got opacity {opacity}, sh_degree {sh_degree}, scale_factor {scale_factor}; "
                "want (0, 1), 0 to 4, > 0"
            )
        distances = neighbor_distance(points.detach()) if count > 1 else torch.ones_like(points[:, 0])
        # Coincident points still get a positive size.
        log_scales = (distances * scale_factor).clamp(min=_MIN_SCALE).log()[:, None].repeat(1, 3)
        if mode != "3dgs":
            log_scales[:, 2] = FLAT_LOG_SCALE
        if generator is None:
            quats = points.new_tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1)
        else:
            # Four normally distributed numbers have a uniform direction on the sphere, hence a uniform rotation.
            quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator).to(points), dim=-1)
        sh = points.new_zeros(count, (sh_degree + 1) ** 2, 3)
        sh[:, 0] = rgb_to_sh0(colors)
        logits = points.new_full((count,), math.log(opacity / (1 - opacity)))
        return cls(points.clone(), quats, log_scales, logits, sh, mode=mode, antialiased=antialiased)

    @classmethod
    def load(cls, path: Path | str) -> "GaussianScene":
        """Load the Gaussians of a file; the format follows from the suffix.

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a file in the format of its suffix, atomically."""
        codecs.save(path, self)

    def validate(self) -> "GaussianScene":
        """Check the values (shapes and dtypes are checked at construction).

        Raises:
            InputError: No Gaussians, a value is not finite, or a quaternion has length zero.
        """
        if self.num_gaussians == 0:
            raise InputError("GaussianScene: got 0 Gaussians, want at least one")
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point():
                check_finite("GaussianScene", name, value)
        is_zero = (self.quats == 0).all(-1)
        if bool(is_zero.any()):
            raise InputError(f"GaussianScene: quats have length zero in {int(is_zero.sum())} of {len(is_zero)} rows")
        return self

    @property
    def num_gaussians(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.sh.shape[1]) - 1

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the axes [m]."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """Opacities in (0, 1)."""
        return self.opacity_logits.sigmoid()

    @property
    def covars(self) -> Float[Tensor, "n 3 3"]:
        """Covariance matrices [m^2]."""
        return quat_scale_to_covar(self.quats, self.scales)

    @property
    def device(self) -> torch.device:
        return self.means.device

    def to(self, device: torch.device | str) -> "GaussianScene":
        """The same scene on another device."""
        return replace(self, **{name: moved(value, device) for name, value in self._tensors().items()})

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "GaussianScene":
        """The scene transformed by a similarity x' = s R x + t: centers, rotations, sizes and view-dependent colors.

        Args:
            matrix: World to new world.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        by = Similarity(matrix, self.means)
        return replace(
            self,
            means=by.points(self.means),
            quats=by.quats(self.quats),
            log_scales=self.log_scales + by.scale.log(),
            sh=rotate_sh(self.sh, by.rotmat),
        )

    def crop(self, which: Rows) -> "GaussianScene":
        """The Gaussians whose centers are selected, in their order.

        Args, errors: as for `selection.rows_of`.
        """
        return self[rows_of(which, self.means)]

    def merge(self, *others: "GaussianScene") -> "GaussianScene":
        """This scene and others as one: harmonics are padded to the highest degree, missing labels become -1.

        Raises:
            InputError: Their modes or antialiasing differ, so no rendering mode is right for all.
            DeviceError: They are on different devices.
        """
        scenes = (self, *others)
        if len({(scene.mode, scene.antialiased) for scene in scenes}) > 1:
            kinds = ", ".join(f"{scene.mode}{' antialiased' if scene.antialiased else ''}" for scene in scenes)
            raise InputError(f"merge: got {kinds}; want scenes of one mode")
        if len({scene.device for scene in scenes}) > 1:
            raise DeviceError(f"merge: got scenes on {', '.join(str(scene.device) for scene in scenes)}; want one device")
        num_coeffs = max(scene.sh.shape[1] for scene in scenes)
        sh = [torch.nn.functional.pad(s.sh, (0, 0, 0, num_coeffs - s.sh.shape[1])) for s in scenes]
        labels = None
        if any(scene.labels is not None for scene in scenes):
            labels = torch.cat([_labels_or_none(scene) for scene in scenes])
        names = ("means", "quats", "log_scales", "opacity_logits")
        parts = {name: torch.cat([getattr(scene, name) for scene in scenes]) for name in names}
        return replace(self, sh=torch.cat(sh), labels=labels, **parts)

    def __len__(self) -> int:
        return self.num_gaussians

    def __getitem__(self, which: int | slice | Tensor | Sequence[int]) -> "GaussianScene":
        """Select Gaussians by an index, slice, mask or index tensor."""
        if isinstance(which, int):
            which = [which]
        return replace(self, **{name: None if value is None else value[which] for name, value in self._tensors().items()})

    def __repr__(self) -> str:
        extras = (", antialiased" if self.antialiased else "") + (", labelled" if self.labels is not None else "")
        return f"GaussianScene({self.num_gaussians} {self.mode}, SH degree {self.sh_degree}{extras}, {self.device})"

    def _repr_html_(self) -> str:
        rows = [
            ("Gaussians", self.num_gaussians),
            ("mode", self.mode + (", antialiased" if self.antialiased else "")),
            ("SH degree", self.sh_degree),
            *((f"{axis} [m]", span(self.means[:, i])) for i, axis in enumerate("xyz")),
            ("scales [m]", span(self.scales)),
            ("opacity", span(self.opacities)),
            (
                "memory [MB]",
                f"{sum(v.numel() * v.element_size() for v in self._tensors().values() if v is not None) / 1e6:.1f}",
            ),
            ("device", self.device),
        ]
        return html_table("GaussianScene", rows, codecs.preview(self))

    def _tensors(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("mode", "antialiased")}


def _labels_or_none(scene: GaussianScene) -> Tensor:
    if scene.labels is not None:
        return scene.labels
    return torch.full((scene.num_gaussians,), -1, dtype=torch.int64, device=scene.device)
