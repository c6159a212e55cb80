"""pandas tables of a store: what is known of each image, and how far its attribution can be trusted."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.read.reader import StoreReader, Target

CERTIFICATE = ("gap", "quadrature_error", "score", "score_baseline", "n_gradients", "converged")


def certificate_table(store: StoreReader, target: Target, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """The certificate of these rows by row number, in the columns of CERTIFICATE; converged as bool."""
    columns = {name: store.values(f"integrated_gradients/{name}", numbers, target) for name in CERTIFICATE}
    columns["converged"] = columns["converged"] == 1
    return pd.DataFrame(columns, index=pd.Index(numbers, name="row"))


def row_table(store: StoreReader, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """A line for each of these rows: classes and confidence, the certificate for the true class, and cam_max.

    cam_max is NaN in a store without Grad-CAM, and not 0, which says that a map is empty.
    """
    positions, names = numbers - int(store.row_numbers[0]), np.array(store.class_names, dtype=object)
    labels, predictions = store.labels[positions], store.predictions[positions]
    first = {
        "label": labels,
        "label_name": names[labels],
        "prediction": predictions,
        "prediction_name": names[predictions],
        "correct": labels == predictions,
        "confidence": store.confidences[positions],
    }
    table = certificate_table(store, "true", numbers)
    for position, (name, column) in enumerate(first.items()):
        # With its dtype: pandas 3 would make names a text dtype of its own, which pandas 2 has not.
        table.insert(position, name, pd.Series(column, table.index, dtype=column.dtype))
    return table.assign(cam_max=store.values("grad_cam/cam_max", numbers) if store.has_grad_cam else np.float32(np.nan))
