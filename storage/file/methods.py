"""The methods that explain a row, as a store holds them: each a group with a picture a row and numbers that belong to it.

A method is one entry here; the schema makes its datasets from it, for the true and for the predicted class, and readers,
tables, figures, exports and `nightlens verify` go over METHODS. What computes it is tasks/parts/methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from storage.file.variable import FLAG, Column, Variable

__all__ = [
    "CAM_AXES",
    "CERTIFICATE",
    "GRAD_CAM",
    "HIRES_CAM",
    "INTEGRATED_GRADIENTS",
    "METHODS",
    "StoredMethod",
    "methods_of",
]

CAM_AXES = ("cam_y", "cam_x")
CERTIFICATE = ("gap", "quadrature_error", "score", "score_baseline", "n_gradients", "converged")


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredMethod:
    """group: of its datasets. title: for people. about: what the group is. variables: of the true class, the picture first.

    kind: "attribution" is signed, (row, y, x, channel), and its sum is judged by a certificate; a "map" is never negative,
    (row, cam_y, cam_x), and its second variable is its maximum.
    how_to_read: what people must know to read its picture. since: the first schema version that has it.
    """

    group: str
    title: str
    about: str
    kind: Literal["attribution", "map"]
    variables: tuple[Variable, ...]
    how_to_read: str
    since: int = 1

    @property
    def picture(self) -> str:
        """Path of the dataset with a picture a row."""
        return self.variables[0].path

    @property
    def peak(self) -> str:
        """Path of the maximum of each map. Of a map."""
        return self.variables[1].path

    @property
    def is_map(self) -> bool:
        """True where it is not there in a night of a model without maps."""
        return self.kind == "map"

    @property
    def slug(self) -> str:
        """Its name in the names of files and pages: grad-cam."""
        return self.group.replace("_", "-")

    @property
    def columns(self) -> tuple[Column, ...]:
        """What people see of its numbers."""
        return tuple(variable.column for variable in self.variables if variable.column)

    def predicted(self) -> tuple[Variable, ...]:
        """The same for the predicted class, of the misclassified rows."""
        return tuple(
            replace(
                variable,
                path=f"{self.group}/predicted/{variable.name}",
                dimensions=("predicted_row", *variable.dimensions[1:]),
                long_name=variable.long_name.replace("true class", "predicted class"),
                description=variable.description.replace("true class", "predicted class"),
                column=None,
            )
            for variable in self.variables
        )


INTEGRATED_GRADIENTS = StoredMethod(
    group="integrated_gradients",
    title="Integrated Gradients",
    about="Integrated Gradients for the true class, with a certificate per row (Sundararajan, Taly, Yan 2017): attribution is "
    "in units of the score, gap says what it misses.",
    kind="attribution",
    how_to_read="""
shares the score of the explained class out among the input values: green pixels raise it compared with a
black (or the configured) baseline, red pixels lower it, and white ones do not matter. The sum over a picture is the score minus
the baseline's score, up to the row's *gap*. Colours are scaled picture by picture: compare patterns, not strengths, between rows.
""".strip(),
    variables=(
        Variable(
            "integrated_gradients/attribution",
            "float32",
            ("row", "y", "x", "channel"),
            "score",
            "Integrated Gradients for the true class",
            "What each input value contributes to the score of the true class, compared with the baseline. "
            "Summed over y, x and channel it is score - score_baseline + gap. Raw: signed, not scaled, not clipped.",
        ),
        Variable(
            "integrated_gradients/gap",
            "float32",
            ("row",),
            "score",
            "completeness gap",
            "sum(attribution) - (score - score_baseline): signed, 0 for the exact integral. How much of the score "
            "the attribution misses or invents.",
            column=Column(name="gap", title="gap", label="gap", number_format="+.3f", by_size=True, caption="gap {}"),
        ),
        Variable(
            "integrated_gradients/quadrature_error",
            "float32",
            ("row",),
            "1",
            "relative quadrature error",
            "L2 norm of the attribution's change when every other node of the rule is left out, over its L2 norm; "
            "0 where both are 0.",
            column=Column(
                name="quadrature_error",
                title="quadrature error",
                label="error",
                number_format=".3f",
                caption="error {}",
            ),
        ),
        Variable(
            "integrated_gradients/score",
            "float32",
            ("row",),
            "score",
            "score of the true class",
            "The model's output for the true class at the image: a probability or a logit, see /configuration.",
            column=Column(name="score", title="score", label="score", number_format=".3g", places=("table",)),
        ),
        Variable(
            "integrated_gradients/score_baseline",
            "float32",
            ("row",),
            "score",
            "score of the true class at the baseline",
            "The model's output for the true class at the baseline image, in the same units as score.",
            column=Column(
                name="score_baseline",
                title="score at the baseline",
                label="baseline",
                number_format=".3g",
                places=("table",),
            ),
        ),
        Variable(
            "integrated_gradients/n_gradients",
            "int32",
            ("row",),
            "1",
            "number of gradients",
            "How many gradients of the model were spent on this row.",
            column=Column(
                name="n_gradients",
                title="gradients spent",
                label="gradients",
                number_format=",d",
                places=("table", "report"),
            ),
        ),
        Variable(
            "integrated_gradients/converged",
            "uint8",
            ("row",),
            "1",
            "converged",
            "1 where gap and quadrature_error met the tolerances of the configuration, 0 where they did not: there, "
            "do not trust details of the attribution.",
            column=Column(
                name="converged",
                title="converged",
                label="converged",
                number_format=FLAG,
                choices=("converged", "not converged"),
                caption="not converged",
                doubt="do not trust details",
            ),
        ),
    ),
)


def _cam(
    group: str,
    title: str,
    picture: str,
    peak: str,
    *,
    column: Column,
    about: str,
    description: str,
    how_to_read: str,
    since: int,
) -> StoredMethod:
    return StoredMethod(
        group=group,
        title=title,
        about=about,
        kind="map",
        since=since,
        how_to_read=how_to_read.strip(),
        variables=(
            Variable(
                f"{group}/{picture}",
                "float32",
                ("row", *CAM_AXES),
                "score",
                f"{title} map for the true class",
                description,
                since=since,
                least=0.0,
                needs_map=True,
            ),
            Variable(
                f"{group}/{peak}",
                "float32",
                ("row",),
                "score",
                f"maximum of the {title} map",
                f"max({picture}) of the row; 0 marks an empty map, which must not be divided by its maximum.",
                since=since,
                column=column,
                needs_map=True,
            ),
        ),
    )


GRAD_CAM = _cam(
    "grad_cam",
    "Grad-CAM",
    "map",
    "cam_max",
    since=1,
    about="Grad-CAM maps for the true class (Selvaraju et al. 2017), non-negative and not normalised.",
    description="Where the explained layer speaks for the true class: never negative, at the layer's resolution, not "
    "normalised. An all-zero map says that nothing speaks for the class.",
    how_to_read="""
shows where the explained convolution layer speaks for that class, on that layer's coarse grid, enlarged:
red is the row's own maximum and blue is nothing. It knows no red-for-against: what speaks against the class is cut off at
zero, and a row where nothing speaks for it has an *empty map*. Methods answer different questions and may disagree.
""",
    column=Column(
        name="cam_max",
        title="Grad-CAM maximum",
        label="Grad-CAM max.",
        number_format=".2g",
        zero="empty map",
        choices=("with heat", "empty"),
        caption="maximum {}",
    ),
)

HIRES_CAM = _cam(
    "hires_cam",
    "HiResCAM",
    "hires",
    "hires_max",
    since=5,
    about="HiResCAM maps for the true class (Draelos & Carin 2020), of the same layer as Grad-CAM, non-negative and not "
    "normalised.",
    description="Where the explained layer speaks for the true class, each cell weighted by its own gradient, not by the mean "
    "gradient of its channel as in Grad-CAM: never negative, at the layer's resolution, not normalised.",
    how_to_read="""
shows the same layer with each cell's own gradient, where Grad-CAM takes the mean over space: behind Flatten and Dense
layers, where the gradient depends on the place, it stays where the evidence is. Colours and *empty maps* are as in Grad-CAM.
""",
    column=Column(
        name="hires_max",
        title="HiResCAM maximum",
        label="HiResCAM max.",
        number_format=".2g",
        zero="empty map",
        choices=("with heat", "empty"),
        caption="maximum {}",
    ),
)

METHODS: tuple[StoredMethod, ...] = (INTEGRATED_GRADIENTS, GRAD_CAM, HIRES_CAM)


def methods_of(schema: int, *, maps: bool) -> Sequence[StoredMethod]:
    """The methods in a store of that schema version. maps: whether it has maps."""
    return [method for method in METHODS if method.since <= schema and (maps or not method.is_map)]
