"""Plain numbers that metrics take over."""

from prometheus_client import CollectorRegistry, Gauge

from fastgpt_site.observability.sums import InProgress, Observations, SummedHistogram

BOUNDS = (0.5, 1.0, 2.0)


def test_it_works():
    """What is taken over is what `observe` would have counted; the bounds belong to the buckets below them."""
    amounts = [0.25, 0.5, 0.5, 1.0, 1.5, 2.0, 2.25, 100.0]
    registries = CollectorRegistry(), CollectorRegistry()
    observed, summed = (
        SummedHistogram("h", "H.", ["part"], buckets=BOUNDS, registry=registry).labels("a") for registry in registries
    )
    for half in (amounts[:3], amounts[3:]):
        observations = Observations(BOUNDS)
        for amount in half:
            observed.observe(amount)
            observations.add(amount)
        summed.take_over(observations)
    for suffix, labels in [
        ("sum", {}),
        ("count", {}),
        *(("bucket", {"le": le}) for le in ("0.5", "1.0", "2.0", "+Inf")),
    ]:
        values = [registry.get_sample_value(f"h_{suffix}", {"part": "a", **labels}) for registry in registries]
        assert values[0] == values[1] is not None, suffix
    assert registries[1].get_sample_value("h_count", {"part": "a"}) == len(amounts)


def test_progress():
    registry = CollectorRegistry()
    streams = InProgress(Gauge("g", "G.", registry=registry))
    with streams, streams:
        streams.write()
        assert registry.get_sample_value("g") == 2
    assert registry.get_sample_value("g") == 2
    streams.write()
    assert registry.get_sample_value("g") == 0
