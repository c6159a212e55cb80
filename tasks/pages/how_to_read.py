"""How a picture of an attribution or a map is read; at the end of every page that has some."""

from collections.abc import Iterable

from storage import StoredMethod

__all__ = ["NO_MAPS", "how_to_read"]

NO_MAPS = "This night has no Grad-CAM: its model has no map to explain, or `grad_cam.layer` is `none`."


def how_to_read(methods: Iterable[StoredMethod]) -> str:
    """Of each method of a night; of a night without maps, also that there are none."""
    said = [f"**{method.title}** {method.how_to_read}" for method in methods]
    return "\n\n".join(said if any(method.is_map for method in methods) else [*said, NO_MAPS])
