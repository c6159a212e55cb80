"""The example night of the storage tests is a fair example."""

import numpy as np
import pytest

from example_store import example_arrays


@pytest.mark.parametrize("group", ["", "predicted/"], ids=["true", "predicted"])
def test_example_is_complete_in_the_sense_of_the_convention(group: str) -> None:
    arrays = {k.removeprefix(f"integrated_gradients/{group}"): v for k, v in example_arrays(0, 30).items()}
    total = arrays["attribution"].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(total, arrays["score"] - arrays["score_baseline"] + arrays["gap"], atol=1e-4)


def test_example_predicts_the_most_probable_class() -> None:
    arrays = example_arrays(0, 30)
    np.testing.assert_array_equal(arrays["probability"].argmax(axis=1), arrays["prediction"])


def test_example_has_both_right_and_wrong_rows() -> None:
    arrays = example_arrays(0, 30)
    assert 0 < (arrays["label"] != arrays["prediction"]).sum() == len(arrays["predicted_row"]) < 30
