"""Ray: connect to it, and spread calls over its workers."""

from distill_platform.cluster.session import connect, resources
from distill_platform.cluster.workers import over_workers

__all__ = ["connect", "over_workers", "resources"]
