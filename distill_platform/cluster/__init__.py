"""Ray: connect to it, and spread calls over its workers.

session.py   one session per process
workers.py   calls over warm workers, from one queue
group.py     a worker of several processes that share one model's weights
"""

from distill_platform.cluster.session import connect, gpu_precision, resources
from distill_platform.cluster.workers import over_workers

__all__ = ["connect", "gpu_precision", "over_workers", "resources"]
