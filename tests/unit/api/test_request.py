"""What can be asked, and in which forms."""

from __future__ import annotations

import pytest

from shiplap.api.request import Output, Request
from shiplap.errors import UsageError


def test_outputs_may_be_text() -> None:
    request = Request(context=".", outputs=("type=oci,dest=x.tar", Output("cacheonly")))  # type: ignore[arg-type]
    assert request.outputs == (Output("oci", "x.tar"), Output("cacheonly"))
    with pytest.raises(UsageError):
        Request(context=".", outputs=("type=nothing",))  # type: ignore[arg-type]
