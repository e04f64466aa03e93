"""Lets what the tests of faults prove with say what did not hold."""

import pytest

pytest.register_assert_rewrite("aim", "trials")
