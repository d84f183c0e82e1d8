"""Collections of metrics each of which counts for itself.

By itself torchmetrics' collection merges metrics whose states are equal after the first batch, and updates only one of
them from then on. A first batch that cannot tell two metrics apart, such as one that is right throughout for accuracy
and top-5 accuracy, so makes them one for good.
"""

from collections.abc import Mapping, Sequence

from torchmetrics import Metric, MetricCollection


def collection(metrics: Mapping[str, Metric], shared: Sequence[Sequence[str]] = ()) -> MetricCollection:
    """Metrics by name, each with a state of its own.

    Args:
        metrics: by name.
        shared: groups of names whose metrics do the same at every update and differ in what they compute of it; each
            group keeps one state.
    """
    return MetricCollection(dict(metrics), compute_groups=[list(names) for names in shared] or False)


def apart(metrics: MetricCollection) -> MetricCollection:
    """The collection, of which nothing is merged but what it states itself: one made by anybody."""
    groups = [list(names) for names in metrics.compute_groups.values()]
    named = dict(metrics.items(keep_base=True, copy_state=False))
    return MetricCollection(named, prefix=metrics.prefix, postfix=metrics.postfix, compute_groups=groups or False)
