"""Trees as tensors, against scikit-learn's predictions and a tree by hand."""

import io

import numpy as np
import pytest
import torch
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression

from quintet.core.errors import QuintetError
from quintet.graphs.models import trees
from quintet.graphs.models.trees import TreeEnsemble


@pytest.fixture(scope="module")
def table():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(240, 6))
    rows[draw.random(rows.shape) < 0.15] = np.nan
    signal = np.nan_to_num(rows[:, 0], nan=2.0) * np.nan_to_num(rows[:, 1], nan=-1.0) + rows[:, 5:].sum(1) * 0
    return rows[:, :5], np.nan_to_num(signal) + 0.1 * draw.normal(size=240)


REGRESSORS = [
    RandomForestRegressor(12, random_state=0),
    RandomForestRegressor(5, max_leaf_nodes=9, random_state=0),
    ExtraTreesRegressor(5, random_state=0),
    HistGradientBoostingRegressor(max_iter=30, random_state=0),
    HistGradientBoostingRegressor(max_iter=10, loss="poisson", random_state=0),
]


@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda estimator: type(estimator).__name__)
def test_regressors_predict_what_scikit_learn_predicts(table, estimator):
    rows, target = table
    target = np.abs(target)
    estimator.fit(rows[:180], target[:180])
    found = TreeEnsemble.of(estimator)(torch.from_numpy(rows))
    np.testing.assert_allclose(found[:, 0].numpy(), estimator.predict(rows), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", [RandomForestClassifier, HistGradientBoostingClassifier])
def test_classifiers_predict_the_same_probabilities(table, kind, classes):
    rows, target = table
    label = np.array(["c", "a", "b"])[np.digitize(target, [0.0, 0.8][: classes - 1])]
    count = {"n_estimators": 8} if kind is RandomForestClassifier else {"max_iter": 8}
    estimator = kind(random_state=0, **count).fit(rows[:180], label[:180])
    found = TreeEnsemble.of(estimator)(torch.from_numpy(rows))
    np.testing.assert_allclose(found.numpy(), estimator.predict_proba(rows), rtol=1e-6, atol=1e-9)


def test_several_targets_of_one_forest(table):
    rows, target = table
    several = np.stack([target, -2 * target, rows[:, 0] > 0], 1)
    estimator = RandomForestRegressor(4, random_state=0).fit(rows, several)
    np.testing.assert_allclose(
        TreeEnsemble.of(estimator)(torch.from_numpy(rows)).numpy(), estimator.predict(rows), rtol=1e-6, atol=1e-9
    )


def test_numbers_that_float32_would_move_across_a_threshold():
    # A forest compares float32: 1 + 2^-30 is 1 there and lies left of 1 + 2^-25; boosting compares as it is.
    rows = np.array([[1.0], [1.0 + 2**-22]] * 20)
    target = np.array([0.0, 1.0] * 20)
    near = np.array([[1.0 + 2**-30], [1 + 2**-23 * 1.1], [1 + 2**-23 * 0.9]])
    for estimator in (
        RandomForestRegressor(3, bootstrap=False),
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=2),
    ):
        estimator.fit(rows, target)
        found = TreeEnsemble.of(estimator)(torch.from_numpy(near))[:, 0].numpy()
        np.testing.assert_allclose(found, estimator.predict(near), rtol=1e-9)


def test_some_columns_of_wider_rows(table):
    rows, target = table
    estimator = RandomForestRegressor(4, random_state=0).fit(rows[:, [4, 1, 0]], target)
    found = TreeEnsemble.of(estimator, np.array([4, 1, 0]))(torch.from_numpy(rows))
    np.testing.assert_allclose(found[:, 0].numpy(), estimator.predict(rows[:, [4, 1, 0]]), rtol=1e-6, atol=1e-9)


def by_hand():
    """x0 <= 1 gives 10, else (x1 <= 0, or missing, gives 20, else 30); and a tree of one leaf, 3; upon 100."""
    ensemble = TreeEnsemble()
    ensemble.load_state_dict(
        {
            "feature": torch.tensor([0, 0, 1, 0, 0, 0], dtype=torch.int32),
            "threshold": torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64),
            "left": torch.tensor([1, 1, 3, 3, 4, 5], dtype=torch.int32),
            "right": torch.tensor([2, 1, 4, 3, 4, 5], dtype=torch.int32),
            "missing_left": torch.tensor([False, False, True, False, False, False]),
            "value": torch.tensor([[0.0], [10], [0], [20], [30], [3]], dtype=torch.float64),
            "roots": torch.tensor([0, 5], dtype=torch.int32),
            "base": torch.tensor([100.0], dtype=torch.float64),
            "link": torch.tensor(0, dtype=torch.int32),
            "rounded": torch.tensor(False),
        }
    )
    return ensemble


def test_a_tree_by_hand_whatever_the_blocks(monkeypatch):
    nan = float("nan")
    rows = torch.tensor([[1.0, 5.0], [1.1, 0.0], [2.0, 0.1], [nan, nan], [nan, 1.0], [0.0, nan]])
    expected = [113.0, 123.0, 133.0, 123.0, 133.0, 113.0]
    assert by_hand()(rows)[:, 0].tolist() == expected
    monkeypatch.setattr(trees, "BLOCK", 4)
    assert by_hand()(rows)[:, 0].tolist() == expected


def test_a_state_dict_alone_brings_the_trees_without_pickle(table):
    rows, target = table
    ensemble = TreeEnsemble.of(HistGradientBoostingRegressor(max_iter=5).fit(rows, target))
    file = io.BytesIO()
    torch.save(torch.nn.ModuleDict({"boosting": ensemble}).state_dict(), file)
    file.seek(0)
    restored = torch.nn.ModuleDict({"boosting": TreeEnsemble()})
    restored.load_state_dict(torch.load(file, weights_only=True))
    restored.load_state_dict(restored.state_dict())  # onto trees of its own
    assert torch.equal(restored["boosting"](torch.from_numpy(rows)), ensemble(torch.from_numpy(rows)))


def test_trees_that_were_not_fitted_are_kept_as_such():
    empty = TreeEnsemble()
    assert not empty.state_dict()
    TreeEnsemble().load_state_dict(empty.state_dict())
    with pytest.raises(QuintetError, match="not fitted"):
        empty(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("left", 2, 0),  # a loop
        ("left", 0, 6),
        ("right", 0, -1),
        ("right", 2, 3),  # one child twice
        ("roots", 0, 6),
        ("roots", 1, 0),  # one tree twice
        ("roots", 1, 1),  # a tree within another
        ("threshold", 0, float("nan")),
        ("feature", 0, -1),
        ("link", (), 9),
        ("value", 0, float("nan")),
    ],
)
def test_what_is_no_tree_is_refused(name, index, value):
    state = {key: tensor.clone() for key, tensor in by_hand().state_dict().items()}
    state[name][index] = value
    with pytest.raises(QuintetError, match="no set of trees"):
        TreeEnsemble().load_state_dict(state)


def chain(length: int, others: int = 0) -> dict[str, torch.Tensor]:
    """A tree as deep as it can be, and others of one node."""
    nodes = 2 * length + 1 + others
    own = torch.arange(nodes, dtype=torch.int32)
    inner = (own < 2 * length) & (own % 2 == 0)
    state = {name: torch.zeros(nodes, dtype=kind) for name, kind in trees.NODES.items()}
    state |= {"left": torch.where(inner, own + 1, own), "right": torch.where(inner, own + 2, own)}
    state |= {"value": torch.zeros(nodes, 1).double(), "base": torch.zeros(1).double()}
    roots = torch.cat([own[:1], own[2 * length + 1 :]])
    return by_hand().state_dict() | state | {"roots": roots}


def test_trees_that_take_far_longer_than_their_size_says_are_refused(monkeypatch):
    TreeEnsemble().load_state_dict(chain(100, 100))
    monkeypatch.setattr(trees, "FREE_STEPS", 0)
    monkeypatch.setattr(trees, "STEPS_PER_NODE", 30)
    TreeEnsemble().load_state_dict(chain(100, 80))  # 100 * 81 steps are 29 for each of 281 nodes
    with pytest.raises(QuintetError, match="no set of trees"):
        TreeEnsemble().load_state_dict(chain(100, 200))
    monkeypatch.setattr(trees, "DEEPEST", 99)
    with pytest.raises(QuintetError, match="more than 99 steps"):
        TreeEnsemble().load_state_dict(chain(100))


@pytest.mark.parametrize(
    "change",
    [
        {"value": torch.zeros(6, 2).double()},
        {"left": torch.zeros(6)},
        {"base": None},
        {"base": torch.tensor(1.0).double()},
    ],
)
def test_tensors_of_other_shapes_or_kinds_are_refused(change):
    state = by_hand().state_dict() | change
    with pytest.raises(QuintetError, match="no set of trees"):
        TreeEnsemble().load_state_dict({key: tensor for key, tensor in state.items() if tensor is not None})


def test_rows_without_a_feature_that_trees_ask_for():
    with pytest.raises(QuintetError, match="ask for feature 2, and rows have 1"):
        by_hand()(torch.zeros(3, 1))


def test_estimators_that_cannot_be_evaluated(table):
    rows, target = table
    filled = np.nan_to_num(rows)
    with pytest.raises(QuintetError, match="LinearRegression holds no trees"):
        TreeEnsemble.of(LinearRegression().fit(filled, target))
    with pytest.raises(QuintetError, match="not fitted"):
        TreeEnsemble.of(RandomForestRegressor())
    several = RandomForestClassifier(2).fit(filled, np.stack([target > 0, target > 1], 1))
    with pytest.raises(QuintetError, match="one a column"):
        TreeEnsemble.of(several)
    words = np.concatenate([filled, np.arange(240)[:, None] % 3], 1)
    categorical = HistGradientBoostingRegressor(max_iter=2, categorical_features=[5]).fit(words, words[:, 5] == 1)
    with pytest.raises(QuintetError, match="categorical"):
        TreeEnsemble.of(categorical)
