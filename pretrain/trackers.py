"""A run's figures in wandb, or in trackio, which is local and needs no account."""

import contextlib
import io
import os
import shlex
import uuid
from pathlib import Path

from data_utils import atomic_files
from data_utils.errors import EnvironmentFault

PROJECT = "miniplm"
WANDB_SECONDS = 60  # what wandb has not sent by then stays in the folder, for `wandb sync`


def start(folder: Path, settings: dict):
    """The run of the tracker that `tracker` and `wandb_mode` ask for, or None.

    A resumed run of ours continues the tracker's run. EnvironmentFault if it cannot start.
    """
    if settings["tracker"] == "trackio":
        return start_trackio(folder, settings)
    if settings["wandb_mode"] == "disabled":
        return None
    return start_wandb(folder, settings)


def end(run, tracker: str, code: int) -> None:
    """Write or send what is left; code: 0, or 1 for a run that failed."""
    if tracker == "trackio":
        with contextlib.redirect_stdout(io.StringIO()):
            run.finish()
        return
    import wandb

    run.finish(exit_code=code)
    wandb.teardown()  # its own process, which would outlive an exit with an error


def start_wandb(folder: Path, settings: dict):
    """A wandb run in SAVE/wandb; a resumed run keeps its id.

    wandb is silenced first: a job would wait forever if it asked for a key.
    """
    import wandb

    mode = settings["wandb_mode"]
    wandb.setup(settings=wandb.Settings(silent=True, finish_timeout=WANDB_SECONDS))
    options = {"id": identity(folder / "wandb"), "resume": "allow", "name": folder.name}
    try:
        run = wandb.init(project=PROJECT, dir=folder, mode=mode, config=settings, **options)
    except wandb.Error as error:
        raise fault(
            f"WANDB_MODE={mode}, but wandb",
            error,
            "set WANDB_API_KEY (or run `wandb login`) and check the network, or use "
            "WANDB_MODE=offline and `wandb sync` later, or WANDB_MODE=disabled",
        ) from error
    print(f"wandb: {run.url or f'offline; later: wandb sync {Path(run.dir).parent}'}", flush=True)
    return run


def start_trackio(folder: Path, settings: dict):
    """A trackio run in TRACKIO_DIR, by default SAVE/trackio.

    trackio knows a run by its name: it has the id, so that runs whose folders are called alike
    can share a TRACKIO_DIR.
    """
    name = f"{folder.name}-{identity(folder / 'trackio')}"
    if not os.environ.get("TRACKIO_DIR"):
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")  # read when trackio is imported
    place = Path(os.environ["TRACKIO_DIR"])
    place.mkdir(parents=True, exist_ok=True)
    try:
        import trackio
        from trackio import fragments

        with contextlib.redirect_stdout(io.StringIO()):
            # On a network file system it writes files that init() does not search for the run.
            fragments.import_inbox_dir()
            run = trackio.init(project=PROJECT, name=name, config=settings, resume="allow")
    except Exception as error:  # of many classes
        raise fault(
            "TRACKER=trackio, but trackio",
            error,
            "pip3 install -r requirements.txt, check the TRACKIO_ variables, or use TRACKER=wandb",
        ) from error
    shown = shlex.quote(str(place))
    print(f"trackio: TRACKIO_DIR={shown} trackio show --project {PROJECT}", flush=True)
    return run


def identity(folder: Path) -> str:
    """The id of a run, kept in folder/id: made when the run first asks for it."""
    path = folder / "id"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        with atomic_files.atomic_file(path, "w") as file:
            file.write(uuid.uuid4().hex[:8])
    return path.read_text(encoding="utf-8")


def fault(what: str, error: Exception, fix: str) -> EnvironmentFault:
    """The error of a tracker that does not start."""
    reason = " ".join(str(error).split())
    return EnvironmentFault(f"{what} does not start ({reason})", fix=fix)
