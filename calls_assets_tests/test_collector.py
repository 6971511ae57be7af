from __future__ import annotations

import gc

import pytest

from calls_assets.collector import hold_collector


def fail_while_held() -> None:
    """Ends with an error after a look at the collector."""
    with hold_collector():
        assert not gc.isenabled()
        raise ValueError("inside")


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_is_off_meanwhile_and_afterwards_as_it_was(is_enabled: bool) -> None:
    """Also after an error."""
    if not is_enabled:
        gc.disable()
    try:
        with pytest.raises(ValueError, match="inside"):
            fail_while_held()
        assert gc.isenabled() is is_enabled
    finally:
        gc.enable()
