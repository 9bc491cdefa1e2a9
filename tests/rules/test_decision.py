"""Actions compare by severity, not by the alphabet."""

from itertools import pairwise

import pytest

from rules.decision import Action


def test_actions_rise_in_severity():
    rising = [Action.ALLOW, Action.REVIEW, Action.MANUAL_REVIEW, Action.PREVENT]
    for milder, severer in pairwise(rising):
        assert milder < severer
        assert milder <= severer
        assert severer > milder
        assert severer >= milder
    assert sorted([*rising[2:], *rising[:2]]) == rising
    assert max(rising) is Action.PREVENT


@pytest.mark.parametrize("action", Action)
def test_an_action_is_its_own_word_on_the_wire(action):
    assert f"{action}" == action.value == action.name
    assert action <= action
    assert action >= action
