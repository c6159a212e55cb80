"""Where things lie for the tests: the checkout, the tests' own data, and what only some machines have beside the checkout."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests"
SETUP = TESTS / "setup"
DATA = TESTS / "data"
