"""What the schema says of a dataset, of a root attribute, and of how people see a number that every row has."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["EVERYWHERE", "FLAG", "NAME", "ROW_DIMENSIONS", "TEXT", "Attribute", "Column", "Place", "Variable"]

TEXT = "utf-8"
# The formats of a column that is a yes or a no, and of one that is a name, "" where a row has none.
FLAG, NAME = "flag", "name"
ROW_DIMENSIONS = ("row", "predicted_row")
# The axes that only a table has (added_tables.py), and whose coordinates are in its group.
OF_TABLES = ("part", "cluster", "medoid", "cell_y", "cell_x")

Place = Literal["table", "report", "page"]
EVERYWHERE: tuple[Place, ...] = ("table", "report", "page")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number of each row as people see it, in tables and exports (`table`), the night's report and the UI's pages.

    name: in tables, exports and the report's data. title: what it is called where there is room; label: where there is not.
    number_format: as `format` takes it, FLAG or NAME. zero: said in place of 0, or of no name. choices: what a filter calls
    the rows where it is not 0 and those where it is 0; without them there is no such filter. has_range: whether a filter asks
    from where to where. by_size: whether rows are ordered by its size, for it is an error of either sign. caption: how a page
    says it below a picture, the number for {}; of a flag, what is said where it is 0. doubt: what to think of a row whose
    flag is 0.
    """

    name: str
    title: str
    label: str
    number_format: str
    zero: str = ""
    choices: tuple[str, ...] = ()
    has_range: bool = False
    by_size: bool = False
    caption: str = ""
    doubt: str = ""
    places: tuple[Place, ...] = EVERYWHERE

    def say(self, value: float | str) -> str:
        """The value for people: "+0.031", "yes", "empty"; "–" where there is none."""
        if isinstance(value, str):
            return value or self.zero or "–"
        if value != value:  # NaN
            return "–"
        if self.number_format == FLAG:
            return "yes" if value else "no"
        return self.zero if self.zero and value == 0 else format(value, self.number_format)

    def captioned(self, value: float) -> str:
        """The same below a picture; empty where there is nothing to say."""
        if not self.caption or value != value:  # NaN
            return ""
        if self.number_format == FLAG:
            return "" if value else self.caption
        return self.zero if self.zero and value == 0 else self.caption.format(self.say(value))


@dataclass(frozen=True)
class Variable:
    """One dataset of the schema. dtype is a NumPy name, or TEXT for fixed-length UTF-8 strings.

    A dimension is the path of its coordinate, but for a `row` that is the group's own: those that older schemas have.
    since: the first schema version that has it. earlier: what a table says of a store that does not have it.
    earlier_texts: what its description was before, and the last schema version in which it was that.
    column: how people see it, if they do. least: what no value may be below.
    """

    path: str
    dtype: str
    dimensions: tuple[str, ...]
    units: str
    long_name: str
    description: str
    since: int = 1
    earlier: float = float("nan")
    earlier_texts: tuple[tuple[int, str], ...] = ()
    column: Column | None = None
    least: float | None = None
    needs_map: bool = False

    @property
    def group(self) -> str:
        """The path of the group the dataset is in, "" for the root."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """Its name in its group."""
        return self.path.rpartition("/")[2]

    def about(self, schema: int) -> dict[str, str]:
        """The texts that the dataset carries in a store of that schema version."""
        described = next((was for last, was in self.earlier_texts if schema <= last), self.description)
        texts = {"long_name": self.long_name, "units": self.units, "description": described}
        # By this xarray knows that it is text, and not bytes.
        return texts | ({"_Encoding": TEXT} if self.dtype == TEXT and schema >= 2 else {})

    @property
    def scales(self) -> tuple[str, ...]:
        """The path of the coordinate of each axis."""
        return tuple(self._scale(dimension) for dimension in self.dimensions)

    def _scale(self, dimension: str) -> str:
        """The nearest coordinate of that name, from the group upwards: few groups have one of their own."""
        has_own = (dimension == "row" and self.group.endswith("/predicted")) or dimension in OF_TABLES
        return f"{self.group}/{dimension}" if has_own else dimension

    @property
    def is_coordinate(self) -> bool:
        """True for the datasets that are dimension scales."""
        return self.scales == (self.path,)

    @property
    def is_per_row(self) -> bool:
        """True where the first axis counts rows, be it all of them or the misclassified."""
        return self.dimensions[0] in ROW_DIMENSIONS

    @property
    def holds_pictures(self) -> bool:
        """True where each row is an image, an attribution or a map: all that is large, and the rest is small."""
        return self.is_per_row and len(self.dimensions) > 2

    @property
    def is_flag(self) -> bool:
        """True where each row has a 0 or a 1, and nothing else."""
        return self.is_per_row and len(self.dimensions) == 1 and self.dtype == "uint8"

    @property
    def is_ragged(self) -> bool:
        """True where the first axis counts the misclassified rows only."""
        return self.is_per_row and self.scales[0] != "row"


@dataclass(frozen=True)
class Attribute:
    """One root attribute of a sealed store. kind is "text", "json" or "integer"; `given` ones come from the caller.

    since: the first schema version that has it. earlier: what is true of the stores before that, JSON as its text.
    """

    name: str
    kind: str
    given: bool
    description: str
    since: int = 1
    earlier: int | str | None = None
