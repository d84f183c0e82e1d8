"""Baselines of whole graphs: what scikit-learn and RDKit say, before and after a checkpoint."""

import numpy as np
import pytest
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from torch_geometric.data import Data

from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.graphs import GraphDescription, GraphStore
from quintet.graphs.data.molecule.descriptors import descriptors_of, morgan_counts
from quintet.graphs.models.references import References

SMILES = [f"{head}{'C' * length}{tail}" for head in "ON" for length in range(1, 8) for tail in ("", "F", "c1ccccc1")]


class Source(DataModule):
    """What baselines ask of a data module of molecules."""

    def molecules_of(self, rows):
        return [Chem.MolFromSmiles(SMILES[row]) for row in rows]


def store_of(y):
    graphs = []
    for row, target in enumerate(y):
        codes = torch.full((row % 4 + 1, 1), row % 2 + 1)
        fields = {"node_categories": codes, "y": target[None], "row": torch.tensor([row])}
        graphs.append(Data(edge_index=torch.zeros(2, 0).long(), num_nodes=len(codes), **fields))
    return GraphStore.of(graphs, {"node_categories": "nodes", "y": "graphs", "row": "graphs"})


@pytest.fixture(scope="module")
def numbers():
    """References of two targets with gaps that learned from the first 36 molecules, the store, and standardised y."""
    draw = torch.Generator().manual_seed(0)
    y = torch.tensor([[len(text), text.count("C")] for text in SMILES]).double() + torch.rand(42, 2, generator=draw)
    y[::5, 1] = torch.nan
    scale = {"a": [5.0, 2.0], "b": [1.0, 4.0]}
    store = store_of(y.float())
    references = References(GraphDescription("molecules", targets=["a", "b"], target_scale=scale), False)
    references.fit(store.select(range(36)), Source())
    return references, store, (y.float().double() - torch.tensor([5.0, 1.0])) / torch.tensor([2.0, 4.0])


def test_each_is_what_its_library_says(numbers):
    references, store, y = numbers
    molecules = Source().molecules_of(range(42))
    counts, descriptors = morgan_counts(molecules).astype(float), descriptors_of(molecules).values
    found = references(store.take(range(36, 42)), Source())
    assert list(found) == references.names == ["forest", "boosting", "nearest", "mean"]
    for at in range(2):
        known = y[:36, at].isfinite().numpy()
        truth = y[:36, at].numpy()[known]
        forest = RandomForestRegressor(100, random_state=0, max_features=1 / 3).fit(counts[:36][known], truth)
        boosting = HistGradientBoostingRegressor(random_state=0, early_stopping=False)
        boosting.fit(descriptors[:36][known], truth)
        for name, estimator, seen in (("forest", forest, counts), ("boosting", boosting, descriptors)):
            np.testing.assert_allclose(found[name][:, at].numpy(), estimator.predict(seen[36:]), atol=1e-5)
        np.testing.assert_allclose(found["mean"][:, at].numpy(), truth.mean(), atol=1e-6)


def test_partners_stand_among_baselines_and_in_a_state_dict():
    y = torch.tensor([[float(len(text))] for text in SMILES])
    store, known = store_of(y), GraphDescription("molecules", targets=["a"], target_scale={"a": [0.0, 1.0]})
    references = References(known, False, partners=True)
    references.fit(store.select(range(36)), Source())
    assert references.blended == ["boosting_on_all", "extra_trees"]
    found = references(store.take(range(36, 42)), Source())
    assert list(found) == ["forest", "boosting", *references.blended, "nearest", "mean"]
    restored = References(known, False, partners=True)
    restored.load_state_dict(references.state_dict())
    for name, values in restored(store.take(range(36, 42)), Source()).items():
        torch.testing.assert_close(values, found[name])


def test_other_graphs_are_blended_with_the_forest():
    known = GraphDescription("graphs", targets=["a"], target_scale={"a": [0.0, 1.0]})
    assert References(known, False, partners=True).blended == ["forest"]
    assert References(known, False).blended == []
    assert References(known, False, wanted=False, partners=True).blended == []


def test_the_nearest_vote_by_their_similarity(numbers):
    references, store, y = numbers
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(molecule) for molecule in Source().molecules_of(range(42))]
    found = references(store.take([40, 41]), Source())["nearest"]
    for row, place in ((40, 0), (41, 1)):
        near = np.array(DataStructs.BulkTanimotoSimilarity(prints[row], prints[:36]))
        chosen = np.sort(near)[-3:]
        if near[near >= chosen[0]].size > 3:  # several are equally near: any of them may vote
            continue
        voters = np.argsort(-near)[:3]
        expected = (near[voters] * y[voters, 0].numpy()).sum() / near[voters].sum()
        assert found[place, 0].item() == pytest.approx(expected, abs=1e-4)
    similarity = references.similarity(store.take([3, 40]), Source())
    best = max(DataStructs.BulkTanimotoSimilarity(prints[40], prints[:36]))
    assert similarity.tolist() == pytest.approx([1.0, best], abs=1e-6)


def test_a_state_dict_brings_them_all(numbers):
    references, store, _ = numbers
    again = References(references.description, False)
    assert not again.fitted
    again.load_state_dict(references.state_dict())
    assert again.fitted
    batch = store.take(range(30, 42))
    for name, values in references(batch, Source()).items():
        assert torch.equal(again(batch, Source())[name], values)


@pytest.mark.parametrize("name", ["trees.forest.0", "nearest.bits", "nearest.targets", "nearest.molecules"])
def test_a_state_dict_of_other_targets_or_fingerprints_is_refused(numbers, name):
    references, _, _ = numbers
    state = references.state_dict()
    wider = {"trees.forest.0": ["trees.forest.0.base", "trees.forest.0.value"]}.get(name, [name])
    if name == "nearest.molecules":
        state["nearest.targets"] = state["nearest.targets"][:-1]
    else:
        state |= {key: torch.cat([state[key]] * 2, -1) for key in wider}
    with pytest.raises(QuintetError, match="its baselines are of other targets or molecules"):
        References(references.description, False).load_state_dict(state)


def test_labels_with_gaps_and_one_that_is_always_yes():
    labels = torch.tensor([[float(len(text) > 6), float("F" in text), 1.0] for text in SMILES])
    labels[::4, 0] = torch.nan
    store = store_of(labels)
    description = GraphDescription("molecules", positives={"long": 9, "fluorine": 9, "all": 9})
    references = References(description, True)
    references.fit(store.select(range(36)), Source())
    found = references(store.take(range(36, 42)), Source())
    assert list(found) == ["forest", "boosting", "nearest", "majority"]
    assert all(values.shape == (6, 3) and 0 <= values.min() <= values.max() <= 1 for values in found.values())
    assert found["forest"][:, 2].tolist() == [1.0] * 6
    known = labels[:36, 0].isfinite()
    counts = morgan_counts(Source().molecules_of(range(42)))
    forest = RandomForestClassifier(100, random_state=0).fit(counts[:36][known.numpy()], labels[:36, 0][known].long())
    np.testing.assert_allclose(found["forest"][:, 0], forest.predict_proba(counts[36:])[:, 1], atol=1e-5)
    assert found["majority"][0].tolist() == pytest.approx(labels[:36].nanmean(0).tolist())


def test_graphs_that_are_no_molecules_have_a_forest_on_what_is_counted():
    classes = torch.arange(42) % 2
    store = store_of(classes)
    description = GraphDescription("graphs", node_words={"kind": ["a", "b"]}, classes={"even": 18, "odd": 18})
    references = References(description, True)
    references.fit(store.select(range(36)), Source())
    found = references(store.take(range(36, 42)), Source())
    assert list(found) == ["forest", "majority"]
    assert found["forest"].argmax(1).tolist() == [0, 1] * 3
    assert found["majority"][0].tolist() == [0.5, 0.5]
    assert references.similarity(store.take([0]), Source()) is None


def test_without_baselines_the_fingerprints_are_kept_all_the_same():
    store = store_of(torch.rand(42, 1))
    references = References(GraphDescription("molecules", target_scale={"a": [0.0, 1.0]}), False, wanted=False)
    references.fit(store, Source())
    assert references.names == []
    assert references.similarity(store.take([5]), Source()).tolist() == [1.0]
