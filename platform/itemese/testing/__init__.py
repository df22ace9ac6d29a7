"""What every method must do, as checks that the author of a method runs.

```python
import pytest

from itemese.testing import method_checks

CHECKS = method_checks("my_package.my_method", {"dim": 16})

@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_my_method(check):
    check()
```

A check raises AssertionError where the method breaks its contract (`methods.base`). It needs no
cluster and no files. ``pytest.register_assert_rewrite("itemese.testing")`` before the import makes
pytest print the compared values.
"""

from itemese.testing.checks import method_checks

__all__ = ["method_checks"]
