"""`npga prior`: synthetic people -> a trained head model with a report."""

from dataclasses import asdict
from pathlib import Path

from npga.capture.synthetic.people import People
from npga.core.device import seed_everything
from npga.core.output import output_dir
from npga.core.processes import Processes, processes
from npga.core.progress import say
from npga.core.store import load_tensors, save_tensors, write_json
from nphm_tracking.model.load import save_head_model
from nphm_tracking.prior.config import PriorConfig
from nphm_tracking.prior.data import PriorData, Rig, make_data, make_rig
from nphm_tracking.prior.evaluate import evaluate
from nphm_tracking.prior.finish import finished_model
from nphm_tracking.prior.train import STATE, new_trainee, prior_sizes, train

DATA, DATA_FORMAT, DATA_VERSION = "data.safetensors", "nphm_tracking.prior_data", 1


def run(config: PriorConfig) -> None:
    """Write out/head_model.safetensors and out/report.json; an interrupted run resumes exactly.

    Started by torchrun, its processes share every batch.

    Raises CaptureError where anny is missing, OutputError where ``out`` exists.
    """
    seed_everything(config.seed)
    with processes(config.device) as team:
        if team.leads:
            _lead(config, team)
        else:
            _follow(config, team)


def _follow(config: PriorConfig, team: Processes) -> None:
    """Train beside the leader, on the data that it made; writes nothing."""
    folder = Path(team.told())
    people = People.load()
    rig = make_rig(people)
    data = _data(people, rig, config, folder)
    train(new_trainee(data, rig, config), data, rig, config, folder, team)


def _lead(config: PriorConfig, team: Processes) -> None:
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "overwrite", "device")}
    with output_dir(
        config.out, overwrite=config.overwrite, fingerprint=settings, resumable=True
    ) as folder:
        people = People.load()
        rig = make_rig(people)
        data = _data(people, rig, config, folder)
        team.told(str(folder))
        trainee = new_trainee(data, rig, config)
        log = train(trainee, data, rig, config, folder, team)
        model = finished_model(trainee, data, rig, config.seed)
        report = evaluate(model, people, rig, count=config.heldout)
        save_head_model(folder / "head_model.safetensors", model, note={"made_by": "npga prior"})
        write_json(
            folder / "report.json",
            {"held_out_mm": report.to_meta(), "settings": settings, "log": log},
        )
        for leftover in (DATA, STATE):
            (folder / leftover).unlink(missing_ok=True)
    say(
        f"{config.out}/head_model.safetensors: surface {report.surface_mean:.2f} mm, canonical "
        f"{report.canonical_mean:.2f} mm on {report.people} held-out people"
    )


def _data(people: People, rig: Rig, config: PriorConfig, folder: Path) -> PriorData:
    """The training arrays, made once per run."""
    path = folder / DATA
    if path.exists():
        held, _ = load_tensors(path, format=DATA_FORMAT, version=DATA_VERSION)
        return PriorData(**held)
    data = make_data(
        people,
        rig,
        count=config.people,
        volume_points=config.volume_points,
        sizes=prior_sizes(config),
        seed=config.seed,
    )
    save_tensors(path, data.tensors(), format=DATA_FORMAT, version=DATA_VERSION, meta={})
    return data
