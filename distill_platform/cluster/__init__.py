"""Ray: connect to it, and spread calls over its workers."""

from distill_platform.cluster.session import connect, gpu_precision, resources
from distill_platform.cluster.workers import over_workers

__all__ = ["connect", "gpu_precision", "over_workers", "resources"]
