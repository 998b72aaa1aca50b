"""The model hub: which commit to take, and one clear error where it cannot be reached.

HF_ENDPOINT, HF_TOKEN and HF_HOME work as everywhere: the hub's own library reads them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data_utils import artefact
from data_utils.artefact_writer import read_settings
from data_utils.errors import EnvironmentFault, from_os_error

FIX = (
    "bring the files here by other means and run the same command with --from DIR, or name a "
    "mirror by HF_ENDPOINT"
)


@contextlib.contextmanager
def reached(repository: str) -> Iterator[None]:
    """Around calls of the hub's libraries: what they raise becomes one EnvironmentFault."""
    try:
        yield
    # The class for "no network" changes with the library's versions (requests, httpx, httpx2).
    except Exception as error:
        known = from_os_error(error)
        if known is not None:
            raise known from error
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        what = f"the hub did not give the files ({reason})"
        raise EnvironmentFault(what, where=repository, fix=FIX) from error


def pinned(folder: Path, repository: str, kind: str, revision: str) -> str:
    """The commit to take: the one folder was begun with, else the hub's for revision ('' newest).

    So an interrupted download never mixes two commits, and a finished one does not ask the hub.
    An EnvironmentFault where the hub cannot be reached.
    """
    manifest = artefact.read_manifest(folder)
    former = manifest.content if manifest else (read_settings(folder) or {}).get("content", {})
    if former.get("repository") == repository and revision in ("", former.get("revision")):
        return former["revision"]
    from huggingface_hub import HfApi

    with reached(repository):
        return HfApi().repo_info(repository, repo_type=kind, revision=revision or None).sha
