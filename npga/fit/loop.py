"""The loop of a fit, on one page. It knows nothing of disks, videos or settings."""

from collections.abc import Iterable

import torch

from npga.avatar import Avatar
from npga.fit.batch import FitBatch
from npga.fit.densify import Densifier
from npga.fit.poses import PoseCorrections
from npga.fit.renderer import Renderer
from npga.fit.runlog import RunLog
from npga.fit.schedule import Schedule
from npga.fit.terms import Scene, Terms


def fit(
    avatar: Avatar,
    poses: PoseCorrections,
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
    """Optimise `avatar` and `poses` on `batches` for steps `start`..`steps`; returns the avatar.

    Raises NpgaError naming the term, the step and the frame where a loss was not finite.
    """
    graph = densifier.graph
    try:
        for step, batch in zip(range(start, steps), batches, strict=False):
            schedule.apply(optimizer, step)
            graph.turn = step
            posed = avatar.decode(
                batch.z_exp,
                poses(batch.index, batch.world_from_head),
                batch.torso,
                basis=schedule.basis(avatar, step),
            )
            rendered = renderer(posed, batch.cameras, batch.window)
            losses = terms(Scene(rendered, batch, avatar, posed, graph, poses.of(batch.index)))
            torch.stack(list(losses.values())).sum().backward()
            densifier.observe(rendered.raster)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if densifier.act(avatar, optimizer, step):
                schedule.frozen.drop()
            log.step(step, losses, batch, gaussians=len(avatar))
    except ValueError:
        log.check()
        raise
    return avatar
