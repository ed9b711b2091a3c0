import pytest
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError
from vision3d.optim import schedules

fractions = st.floats(0, 1)


@given(fractions, fractions)
def test_the_decay_is_exponential(first, second):
    product = schedules.exponential_decay(first / 2, 0.04) * schedules.exponential_decay(second / 2, 0.04)
    assert schedules.exponential_decay((first + second) / 2, 0.04) == pytest.approx(product)


@given(fractions, st.floats(1e-4, 1), st.floats(0, 0.9))
def test_the_decay_stays_between_its_limits(fraction, ratio, delay):
    factor = schedules.exponential_decay(fraction, ratio, delay)
    assert ratio * (1 - 1e-9) <= factor <= 1
    assert schedules.exponential_decay(delay * fraction, ratio, delay) == 1
    assert schedules.exponential_decay(1.0, ratio, delay) == pytest.approx(ratio)


def test_the_resolution_doubles_at_its_fractions():
    at = [schedules.downscale_factor(f, 4, (0.25, 0.5)) for f in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)]
    assert at == [4, 4, 2, 2, 1, 1]
    assert schedules.downscale_factor(1.0, 1) == 1


def test_the_degree_increases_every_thirtieth():
    assert [schedules.sh_degree(step / 30000) for step in (0, 999, 1000, 2000, 3000, 29999)] == [0, 0, 1, 2, 3, 3]
    assert [schedules.sh_degree(step / 300) for step in range(0, 50, 10)] == [0, 1, 2, 3, 3]
    assert schedules.sh_degree(0.0, 2, every=0.0) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.exponential_decay(0.5, 0.0), "final_ratio: got 0.0, want a number > 0"),
        (lambda: schedules.exponential_decay(0.5, 0.1, 1.0), "delay: got 1.0"),
        (lambda: schedules.downscale_factor(0.5, 3), "start: got 3, want a power of two"),
        (lambda: schedules.downscale_factor(0.5, 4, (0.5, 0.1)), "doublings: got .* ascending"),
    ],
)
def test_wrong_arguments_are_rejected(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_one_cycle():
    assert schedules.one_cycle(1.0, 0.0) == pytest.approx(0.04)
    assert schedules.one_cycle(1.0, 0.3) == pytest.approx(1.0)
    assert schedules.one_cycle(1.0, 1.0) == pytest.approx(1e-4)
    rates = [schedules.one_cycle(1.0, i / 100) for i in range(101)]
    assert rates[:31] == sorted(rates[:31]) and rates[30:] == sorted(rates[30:], reverse=True)
    assert schedules.one_cycle(2.0, 0.5, warmup=0.5) == pytest.approx(2.0)
