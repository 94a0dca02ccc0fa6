"""How often an audit of a cohort without any effect raises an alarm."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from tests.auditing.test_parts import decisions
from vitaepp.auditing.facts import Fact
from vitaepp.auditing.permutation import association_test
from vitaepp.auditing.shortcuts import design, targets
from vitaepp.auditing.subgroups import spread_test
from vitaepp.evaluation.statistics import holm

COHORTS, N, SHUFFLES = 100, 80, 999


@pytest.mark.slow
def test_of_cohorts_without_effects_few_raise_an_alarm():
    """Ten tests a cohort; one that is significant after Holm's correction is an alarm.

    Lights ask for an effect besides, so that fewer would be yellow or red.
    """
    alarms = sum(alarm(seed) for seed in range(COHORTS))
    print(f"{alarms} of {COHORTS} cohorts")
    assert binomtest(alarms, COHORTS, 0.05, alternative="greater").pvalue > 0.01


def alarm(seed):
    random = np.random.default_rng(seed)
    features = random.normal(size=(N, 40))
    site = random.choice(list("abc"), N)
    facts = [
        Fact("site", pd.DataFrame({"site": site.astype(object)})),
        Fact("age", pd.DataFrame({"age": random.normal(50, 9, N)})),
        Fact("size", pd.DataFrame(random.normal(50, 9, (N, 3)), columns=list("xyz"))),
    ]
    given = decisions(random, 0.8, N)
    persons, label = np.arange(N), np.eye(2)[given.codes]
    options = {"seed": seed, "count": SHUFFLES}
    p = [association_test(features, targets(f), persons, **options) for f in facts]
    sets = [*([f] for f in facts), facts]
    p += [association_test(design(s, persons), label, persons, **options) for s in sets]
    groups = [pd.factorize(site)[0], random.permutation(N) % 3, random.permutation(N) % 3]
    p += [spread_test(given, np.eye(3)[:, codes], **options) for codes in groups]
    return min(holm(p)) < 0.05
