"""A study's lock where the storage has no files: one holder, for as long as it lives."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray

from itemese.search.sharing import claim, locks_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Bucket:
    """Where no file can be locked."""

    uri = "s3://bucket/claims"

    def filesystem(self) -> tuple[None, str]:
        return None, "bucket/claims"


@ray.remote(num_cpus=0)
class Builder:
    """A process that may die while it holds a lock."""

    def hold(self, name: str) -> bool:
        self.held = locks_of(Bucket())  # type: ignore[arg-type]
        return self.held.__enter__()(name)


def test_a_lock_without_files_is_held_by_one_and_goes_with_its_holder(ray_cluster: None) -> None:
    builder, other = Builder.remote(), Builder.remote()
    assert ray.get(builder.hold.remote("stage-1"))
    assert not ray.get(other.hold.remote("stage-1"))
    assert ray.get(other.hold.remote("stage-2"))
    with ThreadPoolExecutor(1) as pool:

        def wait() -> bool:
            with claim(Bucket(), "stage-1"):  # type: ignore[arg-type]
                return not ray.get(other.hold.remote("stage-1"))

        waiting = pool.submit(wait)
        time.sleep(0.5)
        assert not waiting.done()
        ray.kill(builder)
        assert waiting.result(timeout=60)
    assert ray.get(other.hold.remote("stage-1"))
