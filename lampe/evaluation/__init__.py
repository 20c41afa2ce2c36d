"""Published benchmarks through EleutherAI's lm-evaluation-harness, on a model with any of our methods in it.

`lampe.evaluation.harness` needs the extra `evaluate`; the rows of earlier runs are read without it.
"""

from lampe.evaluation.rows import EvaluationError, Row, Run, Sample, read_rows, recorded, summary

__all__ = ["EvaluationError", "Row", "Run", "Sample", "read_rows", "recorded", "summary"]
