"""A local S3 on this machine, as fsspec finds one by the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

KEYS = {"aws_access_key_id": "dummy", "aws_secret_access_key": "dummy-secret"}


@contextmanager
def local_s3(bucket: str) -> Iterator[Any]:
    """A boto3 client of a server with an empty bucket, whose address and keys are in the environment meanwhile."""
    boto3 = pytest.importorskip("boto3")
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)
    client.create_bucket(Bucket=bucket)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (*KEYS.items(), ("aws_endpoint_url", endpoint)):
            patch.setenv(name.upper(), value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield client
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def s3_environment(environment: dict[str, str]) -> dict[str, str]:
    """An environment for a process of its own, with what it takes to find the server."""
    return environment | {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
