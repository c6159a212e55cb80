"""A mean over rows with its standard error; where there is none, why, in words."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

__all__ = ["LEAST_ROWS", "Estimate"]

LEAST_ROWS = 8  # of fewer a standard error says nothing


class Estimate(BaseModel):
    """mean, standard_error: None where `note` says why there is none. n_rows: rows in which the number is defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float | None
    standard_error: float | None
    n_rows: int
    note: str = ""

    @classmethod
    def of(cls, values: NDArray) -> "Estimate":
        """values: (row,), NaN where the number is not defined."""
        defined = values[np.isfinite(values)].astype(np.float64)
        n = len(defined)
        if n < LEAST_ROWS:
            few = f"too few rows: defined in {n} of {len(values)}, {LEAST_ROWS} are needed"
            note = few if n or len(values) < LEAST_ROWS else f"not defined in any of {len(values)} rows"
            return cls(mean=None, standard_error=None, n_rows=n, note=note)
        error = float(defined.std(ddof=1) / np.sqrt(n))
        return cls(mean=float(defined.mean()), standard_error=error, n_rows=n)

    @property
    def is_positive(self) -> bool:
        """Above 0 by more than three standard errors."""
        return self.mean is not None and self.standard_error is not None and self.mean > 3 * self.standard_error

    @property
    def is_negative(self) -> bool:
        """Below 0 by more than three standard errors."""
        return self.mean is not None and self.standard_error is not None and self.mean < -3 * self.standard_error

    def __str__(self) -> str:
        return self.note if self.mean is None else f"{self.mean:+.3f} ± {self.standard_error:.3f}"
