"""Maps of embeddings: each point where its vector belongs, each class told apart and named."""

import numpy as np
import pytest

from quintet.core.pictures.embeddings import COLOURS, MARKS, MOST, places_of, projection


def points(figure) -> dict[str, np.ndarray]:
    """Places by what the legend says of them."""
    return {group.get_label(): np.asarray(group.get_offsets()) for group in figure.axes[0].collections}


def test_principal_components_keep_distances_along_the_widest_directions():
    # Two directions of variance 9 : 1 and a third without any, turned; the shares are known by hand.
    plane = np.array([[3.0, 1], [3, -1], [-3, 1], [-3, -1]])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    vectors = np.column_stack([plane, np.zeros(4)]) @ turn + 5
    figure = projection(vectors, ["a", "a", "b", None], "$t")
    found = points(figure)
    assert list(found) == ["no label (1)", "a (2)", "b (1)"]
    places = np.concatenate([found["a (2)"], found["b (1)"], found["no label (1)"]])
    np.testing.assert_allclose(np.abs(places), np.abs(plane), atol=1e-9)
    labels = figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    assert labels == ("component 1 (90% of the variance)", "component 2 (10% of the variance)")
    assert figure.get_suptitle() == "$t"


@pytest.mark.parametrize("vectors", [np.array([[1.0, 7], [4, 0]]), np.array([[1.0], [4], [1], [2]])])
def test_too_few_for_a_map_stand_in_order_over_their_first_feature(vectors):
    figure = projection(vectors, ["a"] * len(vectors), "t")
    (places,) = points(figure).values()
    np.testing.assert_allclose(places[:, 0], np.arange(len(vectors)))
    np.testing.assert_allclose(places[:, 1], vectors[:, 0] - vectors[:, 0].mean())
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("image", "feature")


def test_t_sne_keeps_clusters_together():
    draw = np.random.default_rng(0)
    vectors = np.concatenate([draw.normal(0, 1, (20, 5)), draw.normal(40, 1, (20, 5))])
    found = points(projection(vectors, ["a"] * 20 + ["b"] * 20, "t", "tsne"))
    within = max(np.ptp(places, axis=0).max() for places in found.values())
    apart = np.linalg.norm(found["a (20)"].mean(0) - found["b (20)"].mean(0))
    assert apart > within


def test_classes_beyond_the_marks_are_drawn_together_and_the_frequent_keep_their_own():
    shown = len(COLOURS) * len(MARKS)
    labels = [f"class {index}" for index in range(shown + 3) for _ in range(2 if index >= 3 else 1)]
    found = points(projection(np.random.default_rng(0).normal(size=(len(labels), 4)), labels, "t"))
    assert len(found) == shown + 1
    assert len(found["3 rarer classes (3)"]) == 3
    groups = projection(np.random.default_rng(0).normal(size=(len(labels), 4)), labels, "t").axes[0].collections[1:]
    looks = {(tuple(group.get_facecolor()[0]), group.get_paths()[0].vertices.tobytes()) for group in groups}
    assert len(looks) == shown


def test_of_many_a_sample_is_drawn():
    vectors = np.random.default_rng(0).normal(size=(MOST + 50, 2))
    (places,) = points(projection(vectors, ["a"] * len(vectors), "t")).values()
    assert len(places) == MOST
    assert len(np.unique(places, axis=0)) == MOST


def test_embeddings_that_are_all_alike_have_no_share_of_a_variance():
    places, axes = places_of(np.ones((5, 3), dtype=np.float32))
    assert axes == ("all are alike", "all are alike")
    assert not places.any()
