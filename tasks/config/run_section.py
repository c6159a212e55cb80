"""Where the files go, and where and how the parts run."""

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tasks.config.section import Section

__all__ = ["OnDemandRunConfig", "RunConfig", "writable_address"]


def writable_address(address: str) -> str:
    """The address of a copy. Raises ValueError for one that is malformed, cannot be written, or carries a secret."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise ValueError(
            f"publish_to must be an address such as s3://bucket/prefix, got {address!r} ({error})"
        ) from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "publish_to is stored with every night, and must not carry a user, password or signature; expected an address as "
            f"{parts.scheme}://{parts.hostname}{parts.path}, and credentials in the environment"
        )
    if not re.fullmatch(r"(?!file:|memory:)[a-z][a-z0-9+.-]*://[^\s/][^\s]*|(file|memory):///[^\r\n]+", address):
        raise ValueError(f"publish_to must be an address such as s3://bucket/prefix, got {address!r}")
    if parts.scheme in ("http", "https"):
        raise ValueError(
            f"publish_to must be an address that can be written, such as s3://bucket/prefix, got {address!r}"
        )
    return address


class RunConfig(Section):
    """Where the files go and how the parts run."""

    root: Path = Field(Path("nightlens-data"), description="Folder of the nights, models, datasets and parts.")
    rows: str | None = Field(
        None, description="Rows to explain as A:B, 0-based, B excluded; empty: the whole test split."
    )
    resume: str | None = Field(
        None,
        min_length=1,
        description="Id of an unfinished night that goes on, with the settings it began with; empty: a new night.",
    )
    layout: Literal["single", "virtual"] = Field(
        "single",
        description="The sealed store: single: one file that holds everything; virtual: images, attributions and maps stay in "
        "the files of the parts, linked into the night's folder, for nights of tens of gigabytes.",
    )
    move_latest: bool = Field(
        True, description="Whether `latest` moves to this night once it is sealed and has passed its audit."
    )
    publish_to: str | None = Field(
        None,
        description="Address that the finished night's folder is copied to and verified at, such as s3://bucket/prefix (extra "
        "'remote'); credentials come from the environment; empty: no copy.",
    )
    runner: Literal["threads", "dask"] = Field(
        "threads",
        description="Where parts are computed: in threads of this process, or by dask in others (extra 'dask').",
    )
    n_workers: int = Field(
        2,
        ge=1,
        le=256,
        description="Parts computed at the same time: threads, or processes of a local Dask cluster. There are at least as "
        "many threads as GPUs. A cluster at dask_address has workers of its own.",
    )
    dask_address: str | None = Field(
        None,
        description="Address of a running Dask scheduler as tcp://HOST:PORT, whose workers see the root and the dataset "
        "under the same paths; empty: runner dask starts a local cluster.",
    )

    log_to: Literal["mlflow"] | None = Field(
        None,
        description="Where a sealed night is logged besides: mlflow: as a run of the server at mlflow_uri, with its numbers, "
        "settings, pictures and report (extra 'mlflow'); empty: nowhere.",
    )
    mlflow_uri: str | None = Field(
        None,
        description="Address of an MLflow tracking server as http://HOST:PORT; a password comes from MLFLOW_TRACKING_USERNAME "
        "and MLFLOW_TRACKING_PASSWORD of the environment, for settings are stored; empty: its MLFLOW_TRACKING_URI.",
    )

    @field_validator("rows")
    @classmethod
    def _rows_are_a_range(cls, rows: str | None) -> str | None:
        if rows is None:
            return None
        found = re.fullmatch(r"(\d*):(\d*)", rows)
        if not found:
            raise ValueError(f"rows must be A:B with whole numbers from 0, such as 0:500 or 500: or :500, got {rows!r}")
        return rows

    @field_validator("publish_to")
    @classmethod
    def _copy_goes_where_files_can_be_written(cls, address: str | None) -> str | None:
        return None if address is None else writable_address(address)

    @field_validator("dask_address")
    @classmethod
    def _address_is_a_schedulers(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s/@:]+):\d{1,5}", address):
            raise ValueError(f"dask_address must be tcp://HOST:PORT, such as tcp://10.0.0.5:8786, got {address!r}")
        return address

    @field_validator("mlflow_uri")
    @classmethod
    def _uri_is_a_servers(cls, uri: str | None) -> str | None:
        if uri is not None and "@" in uri:
            raise ValueError(
                "mlflow_uri must have no password, for settings are stored; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment"
            )
        if uri is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", uri):
            raise ValueError(f"mlflow_uri must be http://HOST:PORT, such as http://127.0.0.1:5000, got {uri!r}")
        return uri

    @model_validator(mode="after")
    def _uri_needs_log_to(self):
        if self.mlflow_uri and not self.log_to:
            raise ValueError("mlflow_uri is given and log_to is empty; set log_to to mlflow, or leave out the address")
        return self

    @model_validator(mode="after")
    def _address_needs_dask(self):
        if self.dask_address and self.runner != "dask":
            raise ValueError(
                f"dask_address is given and runner is {self.runner!r}; set runner to dask, or leave out the address"
            )
        return self


class OnDemandRunConfig(RunConfig):
    """Where the files go and how the parts run; `latest` stays where it is."""

    move_latest: bool = Field(
        False,
        description="Whether `latest` moves to this night once it is sealed and has passed its audit; off, so that the "
        "explanation of some other model does not become what analysts load as the last night.",
    )
