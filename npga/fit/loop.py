"""The loop of a fit, on one page. It knows nothing of disks, videos or settings."""

from collections.abc import Iterable

import torch

from npga.avatar import Avatar
from npga.fit.batch import FitBatch
from npga.fit.corrections import Corrections, FrameTrack
from npga.fit.densify import Densifier
from npga.fit.renderer import Renderer
from npga.fit.runlog import RunLog
from npga.fit.schedule import Schedule
from npga.fit.terms import Scene, Terms


def fit(
    avatar: Avatar,
    corrections: Corrections,
    batches: Iterable[FitBatch],
    renderer: Renderer,
    terms: Terms,
    densifier: Densifier,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    log: RunLog,
    *,
    steps: int,
    start: int = 0,
) -> Avatar:
    """Optimise avatar and corrections on `batches` for steps `start`..`steps`; returns the avatar.

    Raises NpgaError naming the term, the step and the frame where a loss was not finite.
    """
    graph = densifier.graph
    try:
        for step, batch in zip(range(start, steps), batches, strict=False):
            schedule.apply(optimizer, step)
            graph.turn = step
            corrects = schedule.corrects(step)
            frame = corrections.of(batch) if corrects else FrameTrack.tracked(batch)
            posed = avatar.decode(
                frame.z_exp,
                frame.world_from_head,
                batch.torso,
                field=schedule.field(avatar, step),
            )
            rendered = renderer(posed, batch.cameras, batch.window)
            losses = terms(Scene(rendered, batch, avatar, posed, graph, frame.correction))
            torch.stack(list(losses.values())).sum().backward()
            densifier.observe(rendered.raster)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if corrects:
                corrections.settle()
            if densifier.act(avatar, optimizer, step):
                schedule.kept.drop()
            log.step(step, losses, batch, gaussians=len(avatar))
    except ValueError:
        log.check()
        raise
    return avatar
