"""The parameters of a night, from a YAML file and options or from an unfinished night; what is wrong in one line each."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["BadParameters", "read_parameters", "read_yaml", "refusal", "resumed_parameters"]

# The options of `run` and the keys of the configuration that they override.
OPTION_KEYS = {
    "--dataset": ("dataset", "source"),
    "--data-dir": ("dataset", "data_dir"),
    "--model": ("model", "source"),
    "--input": ("model", "input"),
    "--epochs": ("model", "epochs"),
    "--seeds": ("drift", "reference_seeds"),
    "--root": ("run", "root"),
    "--rows": ("run", "rows"),
    "--layout": ("run", "layout"),
    "--runner": ("run", "runner"),
    "--workers": ("run", "n_workers"),
    "--dask-address": ("run", "dask_address"),
}


class BadParameters(ValueError):
    """Parameters that cannot be used; `lines` has one line for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def read_parameters(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The flow's parameters from a YAML file with their keys, overridden by options of `run`, by option name.

    Raises BadParameters for unknown keys and values that are refused, with a line for each; nothing is written.
    """
    if {"--workers", "--dask-address"} <= options.keys():
        raise BadParameters(
            ["--workers: the cluster at --dask-address has workers of its own; leave out one of the two"]
        )
    return _validated(_read_config(config) if config else {}, options, source=config)


def resumed_parameters(root: Path, night_id: str | None) -> dict[str, Any]:
    """The parameters with which an unfinished night goes on: those it began with. Without an id, the newest such night.

    Raises StoreNotFound if there is none, ValueError if that night is not to be resumed, BadParameters if this version
    does not know its parameters any more.
    """
    from storage import Catalog, StoreNotFound, find_night, read_nights

    catalog = Catalog(root)
    if night_id:
        night = find_night(catalog, night_id)
    else:
        unfinished = [night for night in read_nights(catalog) if night.can_resume]
        if not unfinished:
            raise StoreNotFound(
                f"{root}: no night is unfinished; `nightlens run` starts one, `nightlens nights` lists all"
            )
        night = unfinished[0]
    if not night.can_resume:
        state = f"damaged ({night.note})" if night.state == "damaged" else night.state
        raise ValueError(f"night {night.id} is {state} and cannot be resumed; `nightlens nights` lists all")
    given = {section: dict(values) for section, values in night.run["parameters"].items()}
    given["run"] = given.get("run", {}) | {"root": str(root), "resume": night.id}
    return _validated(given, {}, source=night.folder / "run.json")


def _validated(given: Mapping[Any, Any], options: Mapping[str, Any], source: Path | None) -> dict[str, Any]:
    from pydantic import ValidationError

    from tasks import config as models

    sections: dict[str, type[BaseModel]] = {
        "dataset": models.DatasetConfig,
        "model": models.ModelConfig,
        "explanation": models.ExplanationConfig,
        "integrated_gradients": models.IntegratedGradientsConfig,
        "grad_cam": models.GradCamConfig,
        "worth": models.WorthConfig,
        "drift": models.DriftConfig,
        "audit": models.AuditConfig,
        "alert": models.AlertConfig,
        "gallery": models.GalleryConfig,
        "run": models.RunConfig,
    }
    bad = [f"{source}: {_unknown(str(name), sections)}" for name in given if name not in sections]
    parameters = {}
    for name, model in sections.items():
        values = given.get(name) or {}
        if not isinstance(values, dict):
            bad.append(f"{source}: {name}: expected keys such as {', '.join(model.model_fields)}, got {values!r}")
            continue
        chosen = {OPTION_KEYS[o][1]: value for o, value in options.items() if OPTION_KEYS[o][0] == name}
        try:
            parameters[name] = model(**{**values, **chosen})
        except ValidationError as error:
            bad += _lines(error, name, model, source, chosen)
    if bad:
        raise BadParameters(bad)
    return parameters


def read_yaml(path: Path, expected: str) -> Any:
    """What a YAML file holds. Raises BadParameters with one line that says what was expected."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadParameters([f"{path}: cannot be read ({error.strerror}); {expected}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadParameters([f"{path}: expected YAML, got {' '.join(str(error).split())}"]) from None


def refusal(found: Mapping[str, Any]) -> str:
    """What pydantic says of one value that it refuses, as part of a line."""
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    return f"{found['msg'][0].lower()}{found['msg'][1:]}, got {found['input']!r}"


def _read_config(path: Path) -> dict[Any, Any]:
    given = read_yaml(path, "--config needs a YAML file") or {}
    if not isinstance(given, dict):
        raise BadParameters([f"{path}: expected keys such as 'dataset:' and 'model:', got {type(given).__name__}"])
    return given


def _lines(
    error: "ValidationError", section: str, model: "type[BaseModel]", config: Path | None, chosen: Mapping[str, Any]
) -> list[str]:
    """One line for each thing that pydantic refuses: where, what came, what is expected."""
    lines = []
    for found in error.errors():
        key, *rest = found["loc"] or ("",)
        option = next((o for o, at in OPTION_KEYS.items() if at == (section, key) and key in chosen), None)
        where = option or f"{f'{config}: ' if config else ''}{'.'.join(map(str, filter(None, [section, key, *rest])))}"
        if found["type"] == "extra_forbidden":
            lines.append(f"{config}: {section}.{_unknown(str(key), model.model_fields)}")
        else:
            lines.append(f"{where}: {refusal(found)}")
    return lines


def _unknown(key: str, allowed: Any) -> str:
    return f"{key}: no such key; expected one of {', '.join(allowed)}"
