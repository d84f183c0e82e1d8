"""Covariates as features: fitted on training rows, the same in every file."""

import numpy as np
import pytest

from quintet.timeseries.data.features import Covariate, encoded, fitted, unfit, unseen

NAN = np.nan


def test_numbers_are_scaled():
    covariate = fitted("x", np.array([1.0, 3.0, NAN]), None)
    assert covariate == Covariate("x", 2.0, 1.0)
    assert encoded(np.array([5.0, NAN]), covariate, []).tolist()[0] == [3.0]
    assert np.isnan(encoded(np.array([5.0, NAN]), covariate, [])[1, 0])


def test_a_flag_that_training_never_raises_is_not_scaled():
    assert fitted("holiday", np.zeros(5), None).std == 1.0


def test_words_are_told_apart_by_name_and_not_by_number():
    covariate = fitted("x", np.array([1.0, 0.0, 1.0, NAN]), ["rain", "sun", "hail"])
    assert covariate.categories == ["rain", "sun"]
    features = encoded(np.array([0.0, 2.0, 1.0, NAN]), covariate, ["hail", "rain", "sun"])
    assert np.array_equal(features, [[NAN, NAN], [0, 1], [1, 0], [NAN, NAN]], equal_nan=True)
    assert unseen(covariate, ["hail", "rain", "sun"]) == ["hail"]


@pytest.mark.parametrize(
    ("column", "words", "complaint"),
    [
        (np.array([NAN]), None, "no value"),
        (np.arange(101.0), [str(number) for number in range(101)], "101 categories"),
        (np.arange(101.0), None, None),
    ],
)
def test_what_cannot_be_a_feature(column, words, complaint):
    found = unfit(column, words)
    assert found is None if complaint is None else complaint in found
