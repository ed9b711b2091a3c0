"""Streams, devices and whole runs on a GPU. Single operations: test_cuda_kernels.py and tests/render/test_*_bodies.py."""

import dataclasses

import pytest
import torch

from tests.support.clips import worm
from tests.support.photos import write_photos
from tests.support.scenes import ring_cameras, ring_scene
from vision3d import AnimateConfig, MeshConfig, animate, fit, mesh
from vision3d.core.errors import DeviceError
from vision3d.optim.ssim import ssim_map
from vision3d.render import rasterize
from vision3d.stages.fit import FitConfig

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_empty_inputs(device):
    scene, cameras = ring_scene(20)[:0].to(device), ring_cameras(1).to(device)
    images, alphas, _ = rasterize(
        scene.means, scene.quats, scene.scales, scene.opacities, scene.sh, cameras.viewmats, cameras.Ks, 48, 36, sh_degree=1
    )
    assert images.shape == (1, 36, 48, 3) and not alphas.any()


@pytest.mark.gpu
def test_a_side_stream_waits_for_its_own_work_only():
    image = torch.rand(1, 400, 400, 3, device="cuda")
    want = ssim_map(image, image.flip(1))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(image)
        for _ in range(50):
            torch.randn(2000, 2000, device="cuda") @ torch.randn(2000, 2000, device="cuda")  # keeps the stream busy
        late += image
        got = ssim_map(late, image.flip(1))
    stream.synchronize()
    assert torch.equal(got, want)


@pytest.mark.gpu
def test_the_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("a single GPU")
    a, b = torch.rand(2, 1, 40, 40, 3)
    assert torch.allclose(ssim_map(a.to("cuda:1"), b.to("cuda:1")).cpu(), ssim_map(a, b), atol=1e-5)
    with pytest.raises(DeviceError):
        ssim_map(a.to("cuda:1"), b.to("cuda:0"))


@pytest.mark.gpu
@pytest.mark.parametrize("strategy", ["mcmc", "adc"])
@pytest.mark.parametrize("mode", ["3dgs", "2dgs"])
def test_fit(tmp_path, mode, strategy):
    photos = write_photos(tmp_path / "photos")
    config = FitConfig(steps=150, max_gaussians=80, sh_degree=1, mode=mode, strategy=strategy)
    psnr = [fit(dataclasses.replace(config, device=device), photos).summary["psnr"] for device in ("cpu", "cuda")]
    assert psnr[1] == pytest.approx(psnr[0], abs=1.5)


@pytest.mark.gpu
def test_animate_fit(tmp_path):
    clip = worm(frames=4, cameras=2)
    clip.write(tmp_path / "clip")
    config = AnimateConfig(steps=40, nodes=8, video=False)
    results = [
        animate(dataclasses.replace(config, device=device), tmp_path / "clip", clip.mesh, run_folder=tmp_path / device)
        for device in ("cpu", "cuda")
    ]
    first, second = (result.summary["fitted_psnr"] for result in results)
    assert second == pytest.approx(first, abs=1.5)


@pytest.mark.gpu
def test_mesh():
    pytest.importorskip("open3d")
    scene, config = ring_scene(1500), MeshConfig(resolution=32, views=12, view_size=64, faces=500, texture_size=64, refine=3)
    sizes = [mesh(dataclasses.replace(config, device=device), scene).mesh.vertices.std(0) for device in ("cpu", "cuda")]
    assert torch.allclose(sizes[0], sizes[1].cpu(), rtol=0.05)
