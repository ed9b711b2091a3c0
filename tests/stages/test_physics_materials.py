import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.config import from_dict, presets
from vision3d.core.errors import ConfigError, MissingFileError
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.stages.simulate.materials import laws, plasticity, spectral
from vision3d.stages.simulate.materials.functions import (
    ALIASES,
    Material,
    energy_density,
    initial_memory,
    kirchhoff_stress,
    law_name,
    load_material,
    return_map,
)

ELASTIC = ["corotated", "neo_hookean", "hencky", "snow", "water"]
SOLID = [law for law in ALIASES if law not in ("water", "stationary")]
PLASTIC = ["von_mises", "drucker_prager", "snow", "water", "viscoplastic"]
EYE = torch.eye(3, dtype=torch.float64)


def deformations(count, strength=0.15):
    return EYE + strength * torch.randn(count, 3, 3, dtype=torch.float64)


def rotations(count):
    return quat_to_rotmat(random_quats(count, dtype=torch.float64))


def memories(material, F):
    """Internal variables of particles with a history, for laws that have them."""
    return initial_memory(material, F) + (0.03 * torch.rand(len(F)).double() if material.law == "snow" else 0)


def shear(amount):
    F = EYE.clone()
    F[0, 1] = amount
    return F


def dev(tau):
    return tau - tau.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * EYE


def norm(tau):
    return torch.linalg.matrix_norm(tau)


# Laws


@pytest.mark.parametrize("law", ALIASES)
def test_stress_is_symmetric_and_zero_at_rotations(law):
    material, F = Material(law), deformations(100)
    tau = kirchhoff_stress(material, F)
    torch.testing.assert_close(tau, tau.mT, atol=1e-9 * material.youngs_modulus, rtol=0)
    assert kirchhoff_stress(material, rotations(100)).abs().max() < 1e-8 * material.youngs_modulus
    assert energy_density(material, rotations(100)).abs().max() < 1e-14 * material.youngs_modulus


@pytest.mark.parametrize("law", ALIASES)
def test_stress_is_objective_and_isotropic(law):
    material, F, Q = Material(law), deformations(200), rotations(200)
    memory = memories(material, F)
    tau = kirchhoff_stress(material, F, memory)
    tolerance = {"atol": 1e-8 * material.youngs_modulus, "rtol": 0}
    torch.testing.assert_close(kirchhoff_stress(material, Q @ F, memory), Q @ tau @ Q.mT, **tolerance)
    torch.testing.assert_close(kirchhoff_stress(material, F @ Q, memory), tau, **tolerance)


@pytest.mark.parametrize("law", ELASTIC)
def test_stress_is_the_derivative_of_the_energy(law):
    material, F = Material(law, poisson_ratio=0.3), deformations(200, 0.1).requires_grad_()
    memory = memories(material, F)
    (piola,) = torch.autograd.grad(energy_density(material, F, memory).sum(), F)
    tau = kirchhoff_stress(material, F, memory).detach()
    error = norm(piola @ F.detach().mT - tau) / norm(tau)
    assert error.max() < 1e-9


@pytest.mark.parametrize("law", ["corotated", "neo_hookean", "hencky"])
def test_stress_is_the_central_difference_of_the_energy(law):
    material, F, step = Material(law, youngs_modulus=1.0), deformations(20), 1e-5
    piola = torch.zeros_like(F)
    for i in range(3):
        for j in range(3):
            change = torch.zeros(3, 3, dtype=torch.float64)
            change[i, j] = step
            up, down = energy_density(material, F + change), energy_density(material, F - change)
            piola[:, i, j] = (up - down) / (2 * step)
    tau = kirchhoff_stress(material, F)
    assert (norm(piola @ F.mT - tau) / norm(tau)).max() < 1e-7


@pytest.mark.parametrize("law", SOLID)
def test_small_strains_follow_hooke(law):
    material = Material(law, youngs_modulus=3e5, poisson_ratio=0.3, yield_stress=1e5)
    squeeze = -1e-5 * EYE  # sand has no stress without pressure
    strain = torch.randn(50, 3, 3, dtype=torch.float64) * 1e-6
    strain = (strain + strain.mT) / 2 + squeeze
    F, memory = return_map(material, EYE + strain, initial_memory(material, strain), 1e-4)
    tau = kirchhoff_stress(material, F, memory)
    want = 2 * material.mu * strain + material.lam * strain.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * EYE
    assert (norm(tau - want) / norm(want)).max() < 1e-3


@pytest.mark.parametrize("law", ["corotated", "neo_hookean", "hencky", "von_mises", "viscoplastic"])
def test_a_stretched_bar_reproduces_young_and_poisson(law):
    """Free sides: nu is the contraction for which the lateral stress vanishes; E is stress over strain."""
    material = Material(law, youngs_modulus=2e6, poisson_ratio=0.35, yield_stress=1e5)
    pull, E, nu = 1e-5, material.youngs_modulus, material.poisson_ratio
    F = torch.diag(torch.tensor([1 + pull, 1 - nu * pull, 1 - nu * pull], dtype=torch.float64))[None]
    tau = kirchhoff_stress(material, F)[0]
    assert abs(tau[0, 0] / (E * pull) - 1) < 1e-3
    assert tau[1, 1].abs() < 1e-3 * E * pull


def test_simple_shear_has_its_closed_forms():
    E, gamma = 1e5, 0.4
    tau = kirchhoff_stress(Material("neo_hookean", youngs_modulus=E), shear(gamma)[None])[0]
    mu = Material(youngs_modulus=E).mu
    want = mu * torch.tensor([[gamma**2, gamma, 0], [gamma, 0, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(tau, want, atol=1e-9, rtol=1e-12)
    # Hencky: principal stretches are exp(+-asinh(gamma / 2)); tau_xy = 2 mu h cos(...) with tan 2 theta = 2 / gamma.
    tau = kirchhoff_stress(Material("hencky", youngs_modulus=E), shear(gamma)[None])[0]
    log_stretch = math.asinh(gamma / 2)
    assert abs(tau[0, 1] - 2 * mu * log_stretch / math.sqrt(1 + gamma**2 / 4)) < 1e-9 * E


def test_snow_hardens_under_compression_up_to_its_limit():
    snow, F = Material("snow", max_packing=5.0), deformations(4, 0.01)
    fresh = kirchhoff_stress(snow, F)
    torch.testing.assert_close(fresh, kirchhoff_stress(Material("corotated"), F))
    packed = kirchhoff_stress(snow, F, torch.full((4,), 0.9, dtype=torch.float64))
    torch.testing.assert_close(packed, math.exp(1.0) * fresh)
    torch.testing.assert_close(kirchhoff_stress(snow, F, torch.full((4,), 0.1, dtype=torch.float64)), 5.0 * fresh)


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, 1e-9, -0.3]), min_size=9, max_size=9), st.sampled_from([*ALIASES]))
def test_no_deformation_gives_nan(values, law):
    material, F = Material(law), torch.tensor(values, dtype=torch.float64).view(1, 3, 3)
    mapped, memory = return_map(material, F, initial_memory(material, F), 1e-4)
    for value in (mapped, memory, kirchhoff_stress(material, mapped, memory), energy_density(material, mapped, memory)):
        assert value.isfinite().all()


# Decompositions


@pytest.mark.parametrize("sign", [1, -1])
def test_signed_svd_and_polar_are_proper(sign):
    F = torch.cat(
        [deformations(200, 1.0), torch.zeros(1, 3, 3).double(), torch.diag(torch.tensor([1.0, -1, 0])).double()[None]]
    )
    F[:200] *= (sign * torch.linalg.det(F[:200]).sign())[:, None, None]
    left, stretches, right = spectral.signed_svd(F)
    torch.testing.assert_close(spectral.compose(left, stretches, right), F)
    rotmats, stretch = spectral.polar(F)
    for matrix in (left, right, rotmats):
        torch.testing.assert_close(matrix @ matrix.mT, EYE.expand_as(F))
        torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(202).double())
    assert (stretches[:200, 2].sign() == sign).all() and (stretches[:, :2] >= 0).all()
    torch.testing.assert_close(rotmats @ stretch, F)


def test_an_inverted_particle_is_pushed_back():
    """The force along the inverted axis points outwards: the derivative of the energy there is negative."""
    F = torch.diag(torch.tensor([1.0, 1.0, -0.2], dtype=torch.float64))[None].requires_grad_()
    (piola,) = torch.autograd.grad(energy_density(Material("corotated"), F).sum(), F)
    assert piola[0, 2, 2] < 0
    torch.testing.assert_close(piola @ F.detach().mT, kirchhoff_stress(Material("corotated"), F).detach())


# Plastic flow


@pytest.mark.parametrize("law", [law for law in PLASTIC if law != "viscoplastic"])
def test_return_maps_are_idempotent_and_objective(law):
    material, F, Q = Material(law), deformations(300, 0.2), rotations(300)
    once, memory = return_map(material, F, initial_memory(material, F), 1e-4)
    twice, memory2 = return_map(material, once, memory, 1e-4)
    torch.testing.assert_close(kirchhoff_stress(material, twice), kirchhoff_stress(material, once), atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(memory2, memory, atol=1e-12, rtol=1e-12)
    turned, _ = return_map(material, Q @ F, initial_memory(material, F), 1e-4)
    if law == "water":  # has no rotation
        torch.testing.assert_close(turned, once)
    else:
        torch.testing.assert_close(turned, Q @ once, atol=1e-10, rtol=0)


@pytest.mark.parametrize("law", ["von_mises", "drucker_prager", "viscoplastic"])
def test_flow_dissipates(law):
    """tau : (trial strain - elastic strain) >= 0, by the energy lost at fixed shape."""
    material, F = Material(law), deformations(300, 0.2)
    after, _ = return_map(material, F, initial_memory(material, F), 1e-4)
    tau = kirchhoff_stress(material, after)
    left, before_s, _ = spectral.signed_svd(F)
    strains = spectral.log_stretches(before_s) - spectral.log_stretches(spectral.signed_svd(after)[1])
    work = (left.mT @ tau @ left).diagonal(dim1=-2, dim2=-1).mul(strains).sum(-1)
    assert (work > -1e-9).all() and (work > 1).any()
    assert (energy_density(material, after) <= energy_density(material, F) * (1 + 1e-12)).all()


def test_elastic_laws_and_small_strains_do_not_flow():
    F = EYE + 1e-6 * torch.randn(20, 3, 3).double() - 1e-5 * EYE
    for law in ALIASES:
        if law == "water":
            continue
        memory = initial_memory(Material(law), F)
        after, memory2 = return_map(Material(law), F, memory, 1e-4)
        assert torch.equal(after, F) and torch.equal(memory2, memory)


def test_metal_stays_on_its_yield_surface_and_keeps_its_volume():
    metal, F = Material("von_mises", yield_stress=2e4), deformations(300, 0.2)
    after, strain = return_map(metal, F, initial_memory(metal, F), 1e-4)
    flowed = strain > 0
    assert flowed.sum() > 250
    stress = norm(dev(kirchhoff_stress(metal, after)))
    torch.testing.assert_close(stress[flowed], torch.full_like(stress[flowed], 2e4))
    assert (stress <= 2e4 * (1 + 1e-12)).all()
    torch.testing.assert_close(torch.linalg.det(after), torch.linalg.det(F))


@pytest.mark.parametrize("steps", [1, 7, 500])
def test_hardening_metal_follows_the_bilinear_curve_for_any_steps(steps):
    """Pure shear in logarithmic strain h: |dev tau| = tau_y + 2 mu xi / (1 + xi) (|dev| - tau_y / 2 mu)."""
    metal, total = Material("von_mises", yield_stress=1e4, hardening=0.25), 0.3
    stretch = math.exp(total / steps)
    step = torch.diag(torch.tensor([stretch, 1 / stretch, 1.0], dtype=torch.float64))
    F, memory = EYE[None], initial_memory(metal, EYE[None])
    for _ in range(steps):
        F, memory = return_map(metal, step @ F, memory, 1e-4)
    strain = total * math.sqrt(2)
    start = metal.yield_stress / (2 * metal.mu)
    want = 2 * metal.mu * (start + 0.25 / 1.25 * (strain - start))
    assert abs(float(norm(dev(kirchhoff_stress(metal, F)))[0]) / want - 1) < 1e-9
    assert abs(float(memory[0]) - (strain - start) / 1.25) < 1e-9


def test_sand_stays_in_its_cone():
    sand, F = Material("drucker_prager", friction_deg=35.0), deformations(500, 0.1)
    after, memory = return_map(sand, F, initial_memory(sand, F), 1e-4)
    tau = kirchhoff_stress(sand, after)
    pressure = -tau.diagonal(dim1=-2, dim2=-1).mean(-1)
    assert (pressure > -1e-6).all()
    limit = 3 * sand.friction_slope * pressure
    assert (norm(dev(tau)) <= limit * (1 + 1e-9) + 1e-5).all()
    is_open = memory > 0
    assert is_open.any() and (~is_open).any()
    assert tau[is_open].abs().max() < 1e-6
    torch.testing.assert_close(memory[is_open], torch.linalg.det(F[is_open]).log())
    closed = ~is_open & (memory == 0)
    torch.testing.assert_close(torch.linalg.det(after[closed]), torch.linalg.det(F[closed]))  # shear flow, no dilatancy


def test_sand_has_no_stress_until_it_has_closed_again():
    sand = Material("sand")
    stretch, memory = 1.1, initial_memory(sand, EYE[None])
    F, memory = return_map(sand, stretch * EYE[None], memory, 1e-4)
    torch.testing.assert_close(F, EYE[None])
    F, memory = return_map(sand, 0.95 * F, memory, 1e-4)  # still looser than in the rest state
    assert kirchhoff_stress(sand, F).abs().max() < 1e-6 and memory > 0
    F, memory = return_map(sand, 0.9 * F, memory, 1e-4)
    want = math.log(1.1 * 0.95 * 0.9)  # compressed by exactly this much relative to the rest state
    assert memory == 0 and want < 0
    trace = float(kirchhoff_stress(sand, F)[0].trace())
    assert abs(trace / ((2 * sand.mu + 3 * sand.lam) * 3 * want) - 1) < 1e-9


@pytest.mark.parametrize(("friction_deg", "angle_deg"), [(25.0, 29.60), (30.0, 34.72), (45.0, 46.89)])
def test_sheared_sand_has_the_angle_of_the_infinite_slope(friction_deg, angle_deg):
    """tan(angle) = 2 sqrt(3) sin(phi) / (3 - sin(phi)) in plane shear at constant pressure."""
    sand = Material("sand", friction_deg=friction_deg, poisson_ratio=0.3)
    F, memory = math.exp(-1e-3) * EYE[None], torch.zeros(1).double()
    for _ in range(400):
        F, memory = return_map(sand, shear(1e-4) @ F, memory, 1e-4)
    tau = kirchhoff_stress(sand, F)[0]
    pressure = -tau.trace() / 3
    assert abs(float(pressure) / ((3 * sand.lam + 2 * sand.mu) * 1e-3) - 1) < 1e-9
    measured = math.degrees(math.atan(float(tau[0, 1] / pressure)))
    assert abs(measured - angle_deg) < 0.06
    slope = 2 * math.sqrt(3) * math.sin(math.radians(friction_deg)) / (3 - math.sin(math.radians(friction_deg)))
    assert abs(3 * sand.friction_slope / math.sqrt(2) - slope) < 1e-12
    assert abs(math.degrees(math.atan(slope)) - angle_deg) < 0.01


def test_snow_is_clamped_and_remembers_its_volume():
    snow, F = Material("snow"), deformations(300, 0.1)
    after, memory = return_map(snow, F, initial_memory(snow, F), 1e-4)
    stretches = torch.linalg.svdvals(after)
    assert stretches.max() < 1 + 0.0045 + 1e-12 and stretches.min() > 1 - 0.025 - 1e-12
    torch.testing.assert_close(torch.linalg.det(after) * memory, torch.linalg.det(F))
    inside = (EYE + 1e-3 * torch.randn(10, 3, 3).double()).clone()
    kept, memory = return_map(snow, inside, torch.full((10,), 0.9, dtype=torch.float64), 1e-4)
    assert torch.equal(kept, inside) and (memory == 0.9).all()


def test_water_keeps_only_its_volume():
    water, F = Material("water", poisson_ratio=0.45), deformations(100, 0.1)
    after, _ = return_map(water, F, initial_memory(water, F), 1e-4)
    J = torch.linalg.det(F)
    torch.testing.assert_close(torch.linalg.det(after), J)
    assert dev(after).abs().max() < 1e-14
    torch.testing.assert_close(kirchhoff_stress(water, F), kirchhoff_stress(water, after))
    torch.testing.assert_close(kirchhoff_stress(water, F)[:, 0, 0], water.lam * J * (J - 1))


def test_foam_relaxes_exponentially_to_its_yield_stress():
    """excess' = -(2 mu / eta) excess at small strains."""
    foam, steps = Material("foam", youngs_modulus=1e5, yield_stress=10.0, viscosity=100.0), 2000
    total = 2e-3
    F = torch.diag(torch.tensor([1e-3, -1e-3, 0.0], dtype=torch.float64).exp())[None]
    limit = math.sqrt(2 / 3) * 10.0
    start = float(norm(dev(kirchhoff_stress(foam, F)))[0]) - limit
    memory = initial_memory(foam, F)
    for _ in range(steps):
        F, memory = return_map(foam, F, memory, total / steps)
    excess = float(norm(dev(kirchhoff_stress(foam, F)))[0]) - limit
    assert abs(excess / (start * math.exp(-2 * foam.mu / 100.0 * total)) - 1) < 3e-3
    at_once, _ = return_map(replace(foam, viscosity=0.0), F, memory, 1e-4)
    assert abs(float(norm(dev(kirchhoff_stress(foam, at_once)))[0]) - limit) < 1e-9


# Names and parameters


@pytest.mark.parametrize("law", ["hencky", "von_mises", "drucker_prager", "viscoplastic"])
def test_deformations_below_the_logarithm_limit_are_clamped(law):
    """Otherwise stress and energy would be inconsistent there, and a particle that recovers would gain energy."""
    material = Material(law, yield_stress=1e12)
    flat = torch.diag_embed(torch.tensor([[1.0, 1.0, 1e-3], [1.0, 1.0, -0.2], [1.0, 1.0, 0.5]])).double()
    F, _ = return_map(material, flat, initial_memory(material, flat), 1e-3)
    stretches = torch.linalg.svdvals(F)
    assert (torch.linalg.det(F) > 0).all() and (stretches > 0.99 * spectral.MIN_STRETCH).all()
    assert law == "drucker_prager" or torch.equal(F[2], flat[2])


def test_tables_of_laws_are_complete():
    assert set(laws._STRESSES) == set(laws._ENERGIES) == set(ALIASES)
    assert set(plasticity._FLOWS) == {*PLASTIC, "hencky"}
    names = [*ALIASES, *(alias for aliases in ALIASES.values() for alias in aliases)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "law"), [("jelly", "corotated"), ("Neo-Hookean", "neo_hookean"), (" Sand", "drucker_prager")])
def test_aliases(name, law):
    assert law_name(name) == Material(name).law == law


def test_an_unknown_law_lists_all():
    with pytest.raises(
        ConfigError, match=r"law: 'jely' is not a material; did you mean jelly\? all: corotated \(elastic, jelly"
    ):
        Material("jely")
    with pytest.raises(ConfigError, match=r"law: '#' is not a material; all: .*stationary \(static, fixed\)"):
        Material("#")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("youngs_modulus", -1.0, "youngs_modulus: got -1.0, want a number > 0"),
        ("youngs_modulus", float("inf"), "youngs_modulus: got inf, want a number > 0"),
        ("density", 0.0, "density: got 0.0, want a number > 0"),
        ("density", float("nan"), "density: got nan, want a number > 0"),
        ("poisson_ratio", 0.5, "poisson_ratio: got 0.5, want at least 0 and less than 0.5"),
        ("poisson_ratio", -0.1, "poisson_ratio: got -0.1, want at least 0 and less than 0.5"),
        ("friction_deg", 90.0, "friction_deg: got 90.0, want at least 0 and less than 90 degrees"),
        ("hardening", -1.0, "hardening: got -1.0, want at least 0"),
        ("critical_compression", 1.0, "critical_compression: got 1.0, want at least 0 and less than 1"),
        ("max_packing", 0.5, "max_packing: got 0.5, want at least 1"),
        ("friction_scale", -0.5, "friction_scale: got -0.5, want at least 0"),
        ("friction_scale", float("nan"), "friction_scale: got nan, want at least 0"),
    ],
)
def test_wrong_parameters_are_named(key, value, text):
    with pytest.raises(ConfigError) as error:
        Material(**{key: value})
    assert str(error.value) == text
    assert error.value.exit_code == 2


def test_water_without_bulk_modulus_is_rejected():
    with pytest.raises(ConfigError, match=r"poisson_ratio: got 0\.0, want more than 0 for water, whose bulk modulus is lambda"):
        Material("water", poisson_ratio=0.0)


def test_presets_have_the_laws_of_their_names():
    found = {name: load_material(name) for name in presets("materials")}
    want = {"jelly": "corotated", "rubber": "neo_hookean", "metal": "von_mises", "sand": "drucker_prager", "snow": "snow",
            "water": "water", "foam": "viscoplastic"}  # fmt: skip
    assert {name: material.law for name, material in found.items()} == want
    assert all(1 < material.wave_speed < 500 for material in found.values())
    assert abs(found["water"].lam / 2e5 - 1) < 1e-3
    with pytest.raises(MissingFileError, match="a preset of materials: foam, jelly, metal, rubber, sand, snow, water"):
        load_material("honey")
    with pytest.raises(ConfigError, match="youngs_modulu: unknown; did you mean youngs_modulus"):
        from_dict(Material, {"youngs_modulu": 1.0})


def test_wave_speeds():
    assert abs(Material(youngs_modulus=1e6, poisson_ratio=0.2, density=1000).wave_speed - 33.333) < 1e-3
    water = Material("water", poisson_ratio=0.45)
    assert abs(water.wave_speed - math.sqrt(water.lam / 1000)) < 1e-12
    snow = Material("snow", max_packing=4.0)
    assert abs(snow.wave_speed / replace(snow, law="corotated").wave_speed - 2) < 1e-12
    assert Material("static").wave_speed == 0
