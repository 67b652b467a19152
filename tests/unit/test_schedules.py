"""The schedule is a pure function of images_seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigtrain.clock import Cadence, Clock, moment_name
from bigtrain.schedules import ByResolution, Constant, LinearDecay, Progressive

progressive = st.builds(
    Progressive,
    resolutions=st.sampled_from([[4], [4, 8], [4, 8, 16], [8, 16, 32]]),
    batch_size=st.integers(1, 70) | st.fixed_dictionaries({r: st.integers(1, 70) for r in (4, 8, 16, 32)}),
    total_kimg=st.floats(0.001, 30),
    transition_kimg=st.floats(0.01, 5),
    stabilize_kimg=st.floats(0.01, 5),
    d_steps_per_g_step=st.integers(1, 5),
)


@given(progressive)
def test_phases_follow_each_other_in_whole_steps(schedule):
    start = 0
    for phase in schedule.phases:
        assert phase.start == start
        assert (phase.end - phase.start) % phase.images_per_step == 0
        start = phase.end
    assert (schedule.total_images - schedule.phases[-1].start) % schedule.phases[-1].images_per_step == 0


@given(progressive, st.data())
def test_steps_from_any_moment_are_the_rest_of_all_steps(schedule, data):
    moments = list(schedule.steps(0))
    assert moments[-1].images_seen + moments[-1].phase.images_per_step == schedule.total_images
    cut = data.draw(st.integers(0, len(moments) - 1))
    assert list(schedule.steps(moments[cut].images_seen)) == moments[cut:]


@given(progressive)
def test_alpha_rises_from_0_in_a_transition_and_is_1_outside(schedule):
    for before, now in zip([None, *schedule.steps(0)], schedule.steps(0), strict=False):
        assert 0 <= now.alpha <= 1
        assert now.phase.kind == "transition" or now.alpha == 1
        assert now.alpha == 0 or not (now.first_of_resolution and now.phase.kind == "transition")
        if before is not None and before.resolution == now.resolution:
            assert now.alpha >= before.alpha
        if before is not None and before.resolution != now.resolution:
            assert now.first_of_resolution
            assert now.resolution == 2 * before.resolution


@given(st.integers(1, 100), st.floats(0.001, 20), st.integers(1, 4))
def test_a_constant_schedule_ends_at_the_first_whole_step_not_before_its_length(batch_size, total_kimg, d_steps):
    schedule = Constant(32, batch_size, total_kimg, d_steps)
    assert 0 <= schedule.total_images - round(total_kimg * 1000) < batch_size * d_steps
    assert {moment.resolution for moment in schedule.steps(0)} == {32}


def test_training_may_end_while_a_resolution_fades_in():
    schedule = Progressive([4, 8], 10, 0.5, transition_kimg=0.4, stabilize_kimg=0.3)
    *_, last = schedule.steps(0)
    assert (schedule.total_images, last.resolution, last.alpha) == (500, 8, pytest.approx(190 / 400))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"resolutions": [4, 16]}, "resolutions"),
        ({"resolutions": [6, 12]}, "resolutions"),
        ({"resolutions": []}, "resolutions"),
        ({"batch_size": {4: 8}}, "batch_size"),
        ({"total_kimg": 0}, "total_kimg"),
        ({"transition_kimg": -1}, "transition_kimg"),
        ({"d_steps_per_g_step": 0}, "d_steps_per_g_step"),
    ],
)
def test_mistakes_are_named(arguments, named):
    good = {"resolutions": [4, 8], "batch_size": 8, "total_kimg": 10, "transition_kimg": 1, "stabilize_kimg": 1}
    with pytest.raises(ValueError, match=named):
        Progressive(**{**good, **arguments})


def test_learning_rates():
    schedule = Progressive([4, 8], 10, 2, transition_kimg=0.4, stabilize_kimg=0.3)
    decay = LinearDecay(from_kimg=1, final=0.5)
    factors = [decay.factor(moment, schedule.total_images) for moment in schedule.steps(0)]
    assert factors[0] == factors[100] == 1
    assert decay.factor(schedule.at(1500), schedule.total_images) == pytest.approx(0.75)
    assert decay.factor(schedule.at(2000), schedule.total_images) == pytest.approx(0.5)
    assert [ByResolution({8: 1.5}).factor(schedule.at(g), 2000) for g in (0, 1999)] == [1, 1.5]


@given(st.floats(0.001, 5), st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_a_cadence_falls_due_once_for_each_step_that_reaches_a_multiple(kimg, steps):
    clock, due = Clock(), 0
    for step in steps:
        before = clock.images_seen
        clock.advance(step)
        due += Cadence(kimg).due(before, clock.images_seen)
    every = round(kimg * 1000)
    assert due <= clock.images_seen // every
    assert due == clock.images_seen // every or max(steps) > every
    assert not Cadence(0).due(0, 10**9)


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_names_of_moments_sort_as_time_does(a, b):
    assert (a < b) == (moment_name(a) < moment_name(b))
