"""The counts and times of one model that ModelStatistics returns, defined as Triton's are.

`compute_input` is the time of decoding payloads.
"""

import time
from collections import Counter
from typing import Any

from bottlefit_jax.protocol.stubs import pb
from bottlefit_jax.serve.batching import Result


class Statistics:
    """Counts since the model was loaded. Used in the thread of the event loop only."""

    def __init__(self) -> None:
        self._images = self._succeeded = self._failed = self._last_ms = 0
        self._total_ns = self._failed_ns = self._queue_ns = self._decode_ns = self._tail_ns = 0
        self._batches: Counter[int] = Counter()  # size -> images that were run in batches of it
        self._batch_ns: Counter[int] = Counter()  # size -> the time of those batches, once for each image

    def succeed(self, result: Result, total_ns: int) -> None:
        """Count an answered request."""
        images, tail_ns = len(result.logits), 1000 * result.tail_us
        self._succeeded += 1
        self._images += images
        self._last_ms = time.time_ns() // 1_000_000
        self._total_ns += total_ns
        self._queue_ns += 1000 * result.queue_us
        self._decode_ns += 1000 * (result.decode_us or 0)
        self._tail_ns += tail_ns
        self._batches[result.batch] += images
        self._batch_ns[result.batch] += images * tail_ns

    def fail(self, total_ns: int) -> None:
        """Count a request that was refused, cancelled or expired."""
        self._failed += 1
        self._failed_ns += total_ns

    def message(self, name: str, version: str) -> Any:
        """Return them as inference.ModelStatistics."""
        duration = pb.StatisticDuration
        succeeded = self._succeeded
        batches = {size: round(images / size) for size, images in sorted(self._batches.items())}
        return pb.ModelStatistics(
            name=name,
            version=version,
            last_inference=self._last_ms,
            inference_count=self._images,
            execution_count=sum(batches.values()),
            inference_stats=pb.InferStatistics(
                success=duration(count=succeeded, ns=self._total_ns),
                fail=duration(count=self._failed, ns=self._failed_ns),
                queue=duration(count=succeeded, ns=self._queue_ns),
                compute_input=duration(count=succeeded, ns=self._decode_ns),
                compute_infer=duration(count=succeeded, ns=self._tail_ns),
                compute_output=duration(count=succeeded),
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=size,
                    compute_input=duration(count=count),
                    compute_infer=duration(count=count, ns=self._batch_ns[size] // size),
                    compute_output=duration(count=count),
                )
                for size, count in batches.items()
            ],
        )
