"""The encoder inside scikit-learn: pipelines, searches, clones."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError, VitaeppError
from vitaepp.interop.sklearn import ViTAEFeatures

#: Checks of scikit-learn that do not fit tables of numbers, which this is not made for.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
)


def paths_of(clinic):
    return sorted((clinic / "scans").glob("*.png"))


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_scikit_learn(clinic, name):
    getattr(estimator_checks, name)("ViTAEFeatures", ViTAEFeatures(clinic / "encoder"))


def test_paths_arrays_and_rows_give_the_features_of_the_store(clinic):
    store = Store(clinic / "store")
    features = Encoder.from_pretrained(clinic / "encoder").embed(store)
    estimator = ViTAEFeatures(str(clinic / "encoder"))
    paths = paths_of(clinic)
    of_rows = clone(estimator).set_params(store=clinic / "store", batch_size=5)
    for taken, given in (
        (estimator, paths),
        (estimator, np.array([str(path) for path in paths])),
        (estimator, store.read(range(24))),
        (of_rows, np.arange(24)),
        (of_rows, store.table["subject"]),
        (pickle.loads(pickle.dumps(estimator)), paths),
    ):
        assert np.allclose(taken.fit(given).transform(given), features, atol=1e-5)
    names = estimator.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (features.shape[1], "f0", f"f{len(names) - 1}")
    framed = estimator.set_output(transform="pandas").fit_transform(paths[:2])
    assert list(framed) == list(names)


def test_it_works_in_pipelines_and_searches(clinic):
    kind = np.arange(24) % 2
    features = ViTAEFeatures(clinic / "encoder", store=clinic / "store")
    pipeline = make_pipeline(features, StandardScaler(), LogisticRegression())
    assert cross_val_score(pipeline, np.arange(24), kind, cv=3).mean() > 0.9
    grid = {"vitaefeatures__batch_size": [4, 8], "logisticregression__C": [0.1, 1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(np.arange(24), kind)
    assert search.best_score_ > 0.9
    paths = paths_of(clinic)
    plain = make_pipeline(ViTAEFeatures(clinic / "encoder"), StandardScaler(), LogisticRegression())
    assert plain.fit(paths[:12], kind[:12]).score(paths[12:], kind[12:]) > 0.8


def test_what_it_cannot_take_is_one_line(clinic):
    of_rows = ViTAEFeatures(clinic / "encoder", store=clinic / "store")
    for given, told in (([24], "no subject 24"), (["x"], "no subject x"), ([[1, 2]], "of shape")):
        with pytest.raises(RunError, match=told):
            of_rows.transform(given)
    with pytest.raises(VitaeppError, match="no such run"):
        ViTAEFeatures(clinic / "nowhere").fit(None)
    with pytest.raises(VitaeppError, match="give an array of 2 axes"):
        ViTAEFeatures(clinic / "encoder").transform(np.zeros((1, 3, 4, 5, 6)))
