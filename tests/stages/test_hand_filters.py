"""The One-Euro filter: closed forms, jitter and lag."""

import math

import numpy as np
import pytest

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.stages.hand.config import FilterConfig
from vision3d.stages.hand.filters import OneEuroFilter


def filtered(values, rate=30.0, config=None):
    run = OneEuroFilter(config)
    return np.array([run(value, index / rate) for index, value in enumerate(values)])


def test_a_constant_stays_and_the_first_value_is_returned():
    value = np.array([[0.1, -2.0], [3.0, 0.0]])
    np.testing.assert_array_equal(filtered([value] * 5), np.array([value] * 5))


def test_without_beta_it_is_an_exponential_filter():
    found = filtered([0.0] + [1.0] * 20, config=FilterConfig(min_cutoff=2, beta=0))
    share = 1 / (1 + 30 / (2 * math.pi * 2))
    np.testing.assert_allclose(found, 1 - (1 - share) ** np.arange(21), rtol=1e-12)


def test_one_step_with_beta():
    run = OneEuroFilter(FilterConfig(min_cutoff=1, beta=0.5, derivative_cutoff=1))
    run(np.array([0.0]), 0.0)
    share = 1 / (1 + 10 / (2 * math.pi))
    cutoff = 1 + 0.5 * share * 20  # 2 in 0.1 s
    assert run(np.array([2.0]), 0.1)[0] == pytest.approx(2 / (1 + 10 / (2 * math.pi * cutoff)))


def test_it_works_with_uneven_times():
    slow, fast = OneEuroFilter(FilterConfig(beta=0)), OneEuroFilter(FilterConfig(beta=0))
    for run in (slow, fast):
        run(np.array(0.0), 0.0)
    assert fast(np.array(1.0), 0.01) < slow(np.array(1.0), 0.5)


def test_a_still_hand_jitters_less_and_a_moving_one_lags_little():
    noise = 0.002 * np.random.default_rng(0).normal(size=(600, 63))
    config = FilterConfig()
    still = filtered(noise, config=config)[60:]
    assert still.std() < 0.45 * noise[60:].std()
    moving = np.linspace(0, 20, 600)  # 1 m/s
    lag = (moving - filtered(moving, config=config))[-1]
    plain = (moving - filtered(moving, config=FilterConfig(beta=0)))[-1]
    assert 0 < lag < 0.02 < plain


def test_each_number_has_a_filter_of_its_own():
    values = np.random.default_rng(0).normal(size=(10, 2, 3))
    np.testing.assert_array_equal(filtered(values)[:, 1, 2], filtered(values[:, 1, 2]))


def test_nan_gives_nan_and_the_filter_starts_anew_there():
    values = np.random.default_rng(0).normal(size=(8, 3))
    want = filtered(values)
    values[4, 1] = np.nan
    found = filtered(values)
    assert np.isnan(found[4, 1]) and np.isnan(found).sum() == 1
    assert found[5, 1] == values[5, 1]
    np.testing.assert_array_equal(found[:, [0, 2]], want[:, [0, 2]])


def test_inputs_are_not_changed_and_results_are_copies():
    run, value = OneEuroFilter(), np.zeros(2)
    first = run(value, 0.0)
    first += 5
    np.testing.assert_array_equal(run(value, 1.0), [0, 0])
    np.testing.assert_array_equal(value, [0, 0])


def test_reset():
    run = OneEuroFilter()
    run(np.zeros(2), 1.0)
    run.reset()
    np.testing.assert_array_equal(run(np.ones(3), 0.0), np.ones(3))


@pytest.mark.parametrize("time", [1.0, 0.5, math.nan, math.inf])
def test_times_must_ascend(time):
    run = OneEuroFilter()
    run(np.zeros(2), 1.0)
    with pytest.raises(InputError, match=r"time: got .* s after 1.0 s, want finite, ascending times"):
        run(np.zeros(2), time)


def test_wrong_shapes_and_configurations():
    run = OneEuroFilter()
    run(np.zeros(2), 1.0)
    with pytest.raises(ShapeError, match=r"values: got shape \(3,\), want \(2,\) as before; call reset\(\) in between"):
        run(np.zeros(3), 2.0)
    with pytest.raises(ConfigError, match="min_cutoff: got 0, want a number > 0"):
        FilterConfig(min_cutoff=0)
    with pytest.raises(ConfigError, match="beta: got -1"):
        FilterConfig(beta=-1)
