"""What can go wrong on the way to an address, raised as the store's own errors and without secrets.

An address is shown without user, password and query, in which a signature may be, and never with its storage options.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import StoreError, StoreNotFound, StoreUnreachable
from storage.file.catalog import STORE_NAME

INSTALL = "pip install 'nightlens[remote]'"
NO_RANGES = (
    "this server does not send parts of a file (HTTP ranges); "
    "copy the file to this machine, or serve it by a server that does"
)
ASK = "give credentials in the environment or by storage_options, or renew a signed address that has expired"
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]*://)(?:[^/\s@]*@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?")


class AddressRefused(StoreUnreachable):
    """This address is refused, or cannot be read in parts; another one of the same server may well be readable."""


def without_secrets(text: str) -> str:
    """A text whose addresses have lost user, password, query and fragment."""
    return _ADDRESS.sub(r"\1\2", text)


@contextmanager
def raised_as_store_errors(shown: str) -> Iterator[None]:
    """Turn what fsspec and its file systems raise in the block into the StoreError family, without secrets.

    The cause is left out of the traceback: it names the whole address.
    """
    try:
        yield
    except StoreError:
        raise
    except _failures() as error:
        raise _explained(error, shown) from None


def _failures() -> tuple[type[Exception], ...]:
    """What may be raised; aiohttp's, botocore's and gcsfs' errors are no OSErrors, and loaded only if their scheme is used."""
    foreign = [
        getattr(sys.modules[module], name)
        for module, name in (
            ("aiohttp", "ClientError"),
            ("botocore.exceptions", "BotoCoreError"),
            ("botocore.exceptions", "ClientError"),
            ("gcsfs.retry", "HttpError"),
        )
        if sys.modules.get(module)
    ]
    return (OSError, ValueError, ImportError, RuntimeError, NotImplementedError, *foreign)


def _explained(error: BaseException, shown: str) -> StoreError:
    if isinstance(error, ImportError):
        return StoreError(f"{shown}: reading by address needs packages that are missing ({error}); {INSTALL}")
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and (
        isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    ):
        return _explained(cause, shown)  # type: ignore[arg-type]  # fsspec calls any failed HTTP request "not found"
    reason = without_secrets(f"{type(error).__name__}: {error}")
    status = getattr(error, "status", None)
    is_bucket = "key-like path" in str(error)  # s3fs, of an address without a key
    if isinstance(error, FileNotFoundError | IsADirectoryError) or status in (404, 410) or is_bucket:
        return StoreNotFound(
            f"{shown}: no such file; give the address of {STORE_NAME}, of a night's folder or the root"
        )
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return AddressRefused(f"{shown}: access was refused ({reason}); {ASK}")
    if isinstance(error, ValueError) and ("range" in str(error).lower() or "seek" in str(error).lower()):
        return AddressRefused(f"{shown}: {NO_RANGES}")
    if isinstance(error, ValueError):
        return StoreError(f"{shown}: this address cannot be opened ({reason}); expected one as https://... or s3://...")
    return StoreUnreachable(f"{shown}: cannot be reached ({reason}); check the address, the network and the server")
