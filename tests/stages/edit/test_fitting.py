"""Planes fitted to one object."""

import pytest
import torch

from tests.support.edit_models import PLANES, random_planes
from vision3d.core.errors import InputError, NumericalError
from vision3d.stages.edit.fitting import Observed, fit_planes, refined_planes


def observed_field():
    """A network, and what is known of the field of random planes of it."""
    network = random_planes().network
    generator = torch.Generator().manual_seed(3)
    planes = 2 * torch.randn(1, 3, PLANES.channels, 4, 4, generator=generator)
    planes = torch.nn.functional.interpolate(planes[0], size=PLANES.size, mode="bilinear")[None]
    places, queries = (2 * torch.rand(3000, 3, generator=generator) - 1 for _ in range(2))
    with torch.no_grad():
        return network, Observed(
            places, network.values(planes, places[None])[0], queries, network.logits(planes, queries[None])[0] > 0
        )


def test_the_field_is_that_of_the_object():
    network, observed = observed_field()
    first = torch.zeros(3, PLANES.channels, PLANES.size, PLANES.size)
    found = fit_planes(network, first, observed, steps=150, lr=0.1)
    assert torch.equal(fit_planes(network, first, observed, steps=5), fit_planes(network, first, observed, steps=5))
    with torch.no_grad():
        errors = [
            (network.values(planes[None], observed.places[None])[0] - observed.values).abs().mean() for planes in (first, found)
        ]
        right = [
            ((network.logits(planes[None], observed.queries[None])[0] > 0) == observed.inside).float().mean()
            for planes in (first, found)
        ]
    assert errors[1] < 0.25 * errors[0]
    assert right[1] > 0.93 > right[0]


def test_without_queries_the_density_keeps_its_bits():
    network, observed = observed_field()
    first = torch.randn(3, PLANES.channels, PLANES.size, PLANES.size)
    found = fit_planes(network, first, Observed(observed.places, observed.values), steps=5)
    assert torch.equal(found[:, : PLANES.density_channels], first[:, : PLANES.density_channels])
    assert not torch.equal(found, first)


def test_it_stops_when_the_time_is_over():
    network, observed = observed_field()
    steps = []
    fit_planes(
        network, torch.zeros(3, PLANES.channels, PLANES.size, PLANES.size), observed, steps=10, minutes=1e-4,
        progress=lambda task, step, total, values: steps.append((step, total)),
    )  # fmt: skip
    assert steps[-1] == (10, 10)


def test_places_without_a_weight_do_not_count():
    network, observed = observed_field()
    first = torch.zeros(3, PLANES.channels, PLANES.size, PLANES.size)
    wrong = torch.cat([observed.values, 1 - observed.values])
    weights = torch.cat([torch.ones(3000), torch.zeros(3000)])
    both = Observed(observed.places.repeat(2, 1), wrong, weights=weights)
    found = fit_planes(network, first, both, steps=100, lr=0.1)
    with torch.no_grad():
        errors = [
            (network.values(planes[None], observed.places[None])[0] - observed.values).abs().mean() for planes in (first, found)
        ]
    assert errors[1] < 0.4 * errors[0]


def test_a_few_steps_refine_colors_only():
    network, observed = observed_field()
    first = 0.3 * torch.randn(3, PLANES.channels, PLANES.size, PLANES.size, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():  # as edits are computed
        found = refined_planes(network, first, observed, 30)
        errors = [
            (network.values(planes[None], observed.places[None])[0] - observed.values).abs().mean() for planes in (first, found)
        ]
    assert errors[1] < 0.5 * errors[0] and not found.requires_grad
    assert torch.equal(found[:, : PLANES.density_channels], first[:, : PLANES.density_channels])


def test_what_cannot_be_fitted():
    network, observed = observed_field()
    first = torch.zeros(3, PLANES.channels, PLANES.size, PLANES.size)
    with pytest.raises(InputError, match="0 places"):
        fit_planes(network, first, Observed(observed.places[:0], observed.values[:0]))
    with pytest.raises(InputError, match="2 weights of 3000 places"):
        fit_planes(network, first, Observed(observed.places, observed.values, weights=torch.ones(2)))
    with pytest.raises(InputError, match="one of queries and inside"):
        fit_planes(network, first, Observed(observed.places, observed.values, observed.queries))
    with pytest.raises(NumericalError, match="loss of the planes"):
        fit_planes(network, first, Observed(observed.places, observed.values * torch.nan), steps=1)
