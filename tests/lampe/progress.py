"""What every series of progress reports must keep to."""

from __future__ import annotations


def assert_monotone(reports):
    """Every stage starts low, never falls, keeps its total and ends at it."""
    stages = {}
    for report in reports:
        stages.setdefault(report.stage, []).append(report)
    for stage, steps in stages.items():
        done = [step.done for step in steps]
        assert done == sorted(done), stage
        assert len({(step.total, step.unit) for step in steps}) == 1, stage
        assert done[-1] == steps[-1].total > 0, stage
    return stages
