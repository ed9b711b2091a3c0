"""TripoSR: its published layout, its equations written a second time, and objects that are known in closed form."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.support.lrm import PUBLISHED, SMALL, ball_tensors, config, layout, random_tensors, write_lrm
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.io.images import write_image
from vision3d.stages.edit.lrm import files
from vision3d.stages.edit.lrm.files import license_of, load_lrm
from vision3d.stages.edit.lrm.images import object_image
from vision3d.stages.edit.lrm.sizes import LrmSizes
from vision3d.stages.edit.lrm.surface import LrmObject
from vision3d.stages.edit.lrm.triposr import TripoSR


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def test_the_published_layout():
    with torch.device("meta"):
        network = TripoSR(LrmSizes())
    assert shapes_of(network) == layout(PUBLISHED)
    assert sum(math.prod(shape) for shape in layout(PUBLISHED).values()) == 419_275_628


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_tensor_is_that_of_the_file(tmp_path, dtype):
    tensors = {name: value.to(dtype) for name, value in random_tensors(SMALL).items()}
    network = load_lrm(write_lrm(tmp_path, tensors))
    found = network.state_dict()
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value.float()) for name, value in tensors.items())
    assert not network.training and not any(value.requires_grad for value in network.parameters())


# The equations a second time, with einsum and numbers instead of layers.


def affine(t, name, x):
    y = torch.einsum("...i,oi->...o", x, t[f"{name}.weight"])
    return y + t[f"{name}.bias"] if f"{name}.bias" in t else y


def normed(t, name, x, eps):
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
    return y * t[f"{name}.weight"] + t[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention(q, k, v, heads):
    q, k, v = (x.reshape(len(x), heads, -1) for x in (q, k, v))
    scores = torch.einsum("nhc,mhc->hnm", q, k) / math.sqrt(q.shape[2])
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return torch.einsum("hnm,mhc->nhc", weights, v).flatten(1)


def cubic(x):
    """Weight of the bicubic kernel with a = -0.75."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampling(old, new):
    """Rows of weights: the grid of old cells at the centers of cells that are old / (new + 0.1) wide."""
    weights = torch.zeros(new, old)
    for row in range(new):
        place = (row + 0.5) * old / (new + 0.1) - 0.5
        for near in range(math.floor(place) - 1, math.floor(place) + 3):
            weights[row, min(max(near, 0), old - 1)] += cubic(place - near)
    return weights


def image_tokens(t, n, image):
    vit = "image_tokenizer.model"
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    count, p = n["image"] // n["patch"], n["patch"]
    patches = ((image - mean) / std).reshape(count, p, count, p, 3)
    weight = t[f"{vit}.embeddings.patch_embeddings.projection.weight"]
    x = torch.einsum("ryqxc,ocyx->rqo", patches, weight) + t[f"{vit}.embeddings.patch_embeddings.projection.bias"]
    places = t[f"{vit}.embeddings.position_embeddings"][0]
    grid = places[1:].reshape(n["grid"], n["grid"], -1)
    if count != n["grid"]:
        weights = resampling(n["grid"], count)
        grid = torch.einsum("ri,qj,ijc->rqc", weights, weights, grid)
    x = torch.cat([t[f"{vit}.embeddings.cls_token"][0] + places[:1], (x + grid).flatten(0, 1)])
    for i in range(n["vit_layers"]):
        layer = f"{vit}.encoder.layer.{i}"
        y = normed(t, f"{layer}.layernorm_before", x, 1e-12)
        q, k, v = (affine(t, f"{layer}.attention.attention.{name}", y) for name in ("query", "key", "value"))
        x = x + affine(t, f"{layer}.attention.output.dense", attention(q, k, v, n["vit"] // 64))
        y = gelu(affine(t, f"{layer}.intermediate.dense", normed(t, f"{layer}.layernorm_after", x, 1e-12)))
        x = x + affine(t, f"{layer}.output.dense", y)
    return normed(t, f"{vit}.layernorm", x, 1e-12)


def planes_of(t, n, seen):
    learned = torch.einsum("pcyx->pyxc", t["tokenizer.embeddings"]).reshape(-1, n["width"])
    groups = learned.reshape(-1, 32, n["width"] // 32)
    spread = groups - groups.mean((0, 2), keepdim=True)
    groups = spread / (spread.square().mean((0, 2), keepdim=True) + 1e-6).sqrt()
    x = affine(t, "backbone.proj_in", groups.flatten(1) * t["backbone.norm.weight"] + t["backbone.norm.bias"])
    for i in range(n["layers"]):
        block = f"backbone.transformer_blocks.{i}"
        for norm, name, other in (("norm1", "attn1", None), ("norm2", "attn2", seen)):
            y = normed(t, f"{block}.{norm}", x, 1e-5)
            other = y if other is None else other
            parts = [affine(t, f"{block}.{name}.{key}", z) for key, z in (("to_q", y), ("to_k", other), ("to_v", other))]
            x = x + affine(t, f"{block}.{name}.to_out.0", attention(*parts, n["heads"]))
        y = affine(t, f"{block}.ff.net.0.proj", normed(t, f"{block}.norm3", x, 1e-5))
        half = y.shape[1] // 2
        x = x + affine(t, f"{block}.ff.net.2", y[:, :half] * gelu(y[:, half:]))
    tokens = (learned + affine(t, "backbone.proj_out", x)).reshape(3, n["plane"], n["plane"], n["width"])
    planes = torch.einsum("pyxc,cokl->poykxl", tokens, t["post_processor.upsample.weight"])
    planes = planes.reshape(3, n["channels"], 2 * n["plane"], 2 * n["plane"])
    return planes + t["post_processor.upsample.bias"][None, :, None, None]


def bilinear(plane, u, v):
    """Values of a plane (c, h, w) at coordinates in [-1, 1]; 0 beyond the texels."""
    size = plane.shape[1]
    x, y = (u + 1) * size / 2 - 0.5, (v + 1) * size / 2 - 0.5
    total = torch.zeros(plane.shape[0])
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            if 0 <= column < size and 0 <= row < size:
                total += plane[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


@pytest.mark.parametrize("image", [32, 48])
def test_the_planes_are_those_of_the_equations(tmp_path, image):
    n = {**SMALL, "image": image}
    tensors = random_tensors(n, seed=3)
    network = load_lrm(write_lrm(tmp_path, tensors, n))
    picture = torch.rand(image, image, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(picture)
    expected = planes_of(tensors, n, image_tokens(tensors, n, picture))
    assert expected.std() > 0.1 and float((found - expected).abs().max()) < 1e-4
    with torch.no_grad():
        assert not torch.allclose(network(1 - picture), found, atol=1e-3)  # the image matters
    with pytest.raises(ShapeError, match="image"):
        network(picture[:8])


def test_the_encoder_of_images_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    n = {**SMALL, "image": 32}  # the grid that positions are stored for
    tensors = random_tensors(n, seed=4)
    names = {
        "encoder.layer": "layers", "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
    }  # fmt: skip
    other = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=n["vit"],
            num_hidden_layers=n["vit_layers"],
            num_attention_heads=2,
            intermediate_size=n["vit_mlp"],
            image_size=32,
            patch_size=n["patch"],
        )
    ).eval()
    own = {}
    for name, value in tensors.items():
        if name.startswith("image_tokenizer.model."):
            key = name.removeprefix("image_tokenizer.model.")
            if key not in other.state_dict():  # of a version that renamed the layers
                for old, new in names.items():
                    key = key.replace(old, new)
                key = key.replace("output.dense", "mlp.fc2")
            own[key] = value
    other.load_state_dict(own)
    network = load_lrm(write_lrm(tmp_path, tensors, n))
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = network.image_tokenizer["model"](picture), other(picture).last_hidden_state
    assert expected.std() > 0.1 and float((found - expected).abs().max()) < 1e-4


def test_the_field_is_that_of_the_equations(tmp_path):
    tensors = random_tensors(SMALL, seed=5)
    network = load_lrm(write_lrm(tmp_path, tensors))
    generator = torch.Generator().manual_seed(2)
    planes = torch.randn(3, SMALL["channels"], 12, 12, generator=generator)
    points = (2 * torch.rand(40, 3, generator=generator) - 1) * 0.87
    density, colors = network.query(planes, points)
    for point, one, color in zip(points / 0.87, density, colors):
        x, y, z = point.tolist()
        features = torch.cat([bilinear(planes[0], x, y), bilinear(planes[1], x, z), bilinear(planes[2], y, z)])
        for i in range(SMALL["hidden"]):
            features = affine(tensors, f"decoder.layers.{2 * i}", features)
            features = features / (1 + (-features).exp())
        raw = affine(tensors, f"decoder.layers.{2 * SMALL['hidden']}", features)
        assert float(one) == pytest.approx(math.exp(float(raw[0]) - 1), rel=1e-4, abs=1e-6)
        assert torch.allclose(color, 1 / (1 + (-raw[1:]).exp()), atol=1e-4)


def test_a_ball(tmp_path):
    network = load_lrm(write_lrm(tmp_path, ball_tensors(0.5)))
    with torch.no_grad():
        found = LrmObject(network, network(torch.rand(48, 48, 3)))
    surface = found.surface(48)
    radius = torch.linalg.vector_norm(surface.vertices, dim=1)
    assert float((radius - 0.5 * 0.87).abs().max()) < 0.03  # of planes of 12 texels
    points = found.points(surface, 2000)
    world = points.points @ points.matrix[:3, :3].T + points.matrix[:3, 3]
    clear = world[:, 1].abs() > 0.1
    is_red = points.values[:, 0] > points.values[:, 2]
    assert bool((is_red == (world[:, 1] < 0))[clear].all())  # its front, +x, is -y of ours
    observed = found.observed(points)
    assert observed.queries is not None and observed.inside is not None
    distance = torch.linalg.vector_norm(observed.queries @ points.matrix[:3, :3].T + points.matrix[:3, 3], dim=1)
    sure = (distance - 0.5 * 0.87).abs() > 0.05
    assert bool((observed.inside == (distance < 0.5 * 0.87))[sure].all()) and 0.2 < float(observed.inside.float().mean()) < 0.8
    with pytest.raises(InputError, match="finds no object"):
        LrmObject(network, found.planes + 5).surface(32)


def test_the_object_of_an_image_is_in_its_middle(tmp_path):
    image = torch.zeros(40, 60, 4)
    image[5:25, 10:20] = torch.tensor([1.0, 0, 0, 1])  # 20 rows, 10 columns
    write_image(tmp_path / "cut.png", image)
    found = object_image(tmp_path / "cut.png", 100, fill=0.5)
    red = (found[..., 0] > 0.9) & (found[..., 1] < 0.1)
    rows, columns = red.any(1).nonzero()[:, 0], red.any(0).nonzero()[:, 0]
    assert abs(len(rows) - 50) <= 3 and abs(len(columns) - 25) <= 3
    assert abs(float(rows.float().mean()) - 49.5) <= 2 and abs(float(columns.float().mean()) - 49.5) <= 2
    assert torch.allclose(found[0, 0], torch.tensor(0.5), atol=1e-3)
    write_image(tmp_path / "none.png", torch.zeros(8, 8, 4))
    with pytest.raises(InputError, match="transparent everywhere"):
        object_image(tmp_path / "none.png", 32)


def test_an_image_that_is_not_cut_out_is_used_as_it_is(tmp_path, caplog):
    write_image(tmp_path / "photo.png", torch.rand(20, 40, 3))
    found = object_image(tmp_path / "photo.png", 40)
    assert "has no transparency" in caplog.text
    assert torch.allclose(found[:9], torch.tensor(0.5)) and found[10:30].std() > 0.1


def test_missing_and_unexpected_names_are_listed(tmp_path):
    tensors = random_tensors(SMALL)
    gone = "backbone.transformer_blocks.1.attn2.to_q.weight"
    del tensors[gone]
    tensors["surplus.weight"] = torch.zeros(2)
    tensors["decoder.layers.0.bias"] = torch.zeros(3)
    with pytest.raises(FileFormatError) as error:
        load_lrm(write_lrm(tmp_path, tensors))
    text = str(error.value)
    assert "model.safetensors" in text and gone in text and "surplus.weight" in text
    assert "decoder.layers.0.bias (3,) for (16,)" in text
    with pytest.raises(FileFormatError, match="does not match its network"):
        load_lrm(write_lrm(tmp_path / "other", {"weight": torch.zeros(2)}, PUBLISHED))


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "config.yaml").write_text(config(SMALL))
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.ckpt")
    with pytest.raises(FileFormatError, match=r"model\.ckpt: is a pickle.*weights_only=True.*model\.safetensors"):
        load_lrm(tmp_path)
    (tmp_path / "model.ckpt").rename(tmp_path / "model.safetensors")
    with pytest.raises(FileFormatError, match=r"not a \.safetensors file"):
        load_lrm(tmp_path)


@pytest.mark.parametrize(
    "old, new, text",
    [
        ("activation: silu", "activation: relu", "decoder.activation: got 'relu', want 'silu'"),
        ("num_layers: 2", "num_layers: two", "backbone.num_layers: got 'two', want a positive integer"),
        ("num_layers: 2", "", "lacks backbone.num_layers"),
        ("network_utils.NeRFMLP", "network_utils.Other", "want NeRFMLP"),
        ("in_channels: ${tokenizer.num_channels}", "in_channels: ${backbone.in_channels}", "refers to itself"),
        ("in_channels: ${tokenizer.num_channels}", "in_channels: 7", "backbone.in_channels: got 7, want 64"),
        ("num_attention_heads: 2", "num_attention_heads: 3", "backbone.attention_head_dim: got 96, want 64"),
        ("cond_image_size: 48", "cond_image_size: 50", "cond_image_size: got 50, want a multiple of 8"),
        ("radius: 0.87", "radius: -1", "renderer.radius: got -1, want a number above 0"),
    ],
)
def test_another_configuration(tmp_path, old, new, text):
    write_lrm(tmp_path, random_tensors(SMALL))
    path = tmp_path / "config.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(FileFormatError) as error:
        load_lrm(tmp_path)
    assert text in str(error.value)


def test_folders_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match="none"):
        load_lrm(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileFormatError, match="is a file, want a folder"):
        load_lrm(tmp_path / "file")
    with pytest.raises(MissingFileError, match=r"model\.safetensors"):
        load_lrm(tmp_path)
    save_file(random_tensors(SMALL), tmp_path / "model.safetensors")
    with pytest.raises(MissingFileError, match=r"config\.yaml"):
        load_lrm(tmp_path)
    bad = random_tensors(SMALL)
    bad["backbone.norm.bias"][0] = torch.nan
    with pytest.raises(FileFormatError, match=r"backbone\.norm\.bias: has values that are not finite"):
        load_lrm(write_lrm(tmp_path, bad))
    monkeypatch.setattr(files, "free_memory", lambda: 1000)
    with pytest.raises(InputError, match="want more free memory"):
        load_lrm(write_lrm(tmp_path, random_tensors(SMALL)))


def test_the_license(tmp_path):
    assert license_of(tmp_path).startswith("MIT")
    (tmp_path / "LICENSE.txt").write_text("\n  Some License\nmore\n")
    assert license_of(tmp_path) == "Some License (LICENSE.txt)"
