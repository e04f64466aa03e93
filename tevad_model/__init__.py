"""TEVAD: weakly supervised video anomaly detection with text.

The library. It knows videos, snippets, tensors and scores. It knows no Dagster, DVC, MLflow,
Great Expectations or boto3: those live in ``assets`` and ``orchestration``, which import this
package and are never imported by it.

Reference: Chen et al., "TEVAD: Improved video anomaly detection with captions", CVPR Workshops 2023.
"""

__version__ = "0.1.0"
