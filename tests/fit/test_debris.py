"""What hangs in the air goes, the head stays."""

from dataclasses import replace

import torch
from tiny_person import tiny_session

from npga.fit.debris import clusters, debris, seen_share, sweep


def grid(side: int, at: tuple[float, float, float]) -> torch.Tensor:
    """side^3 points 0.01 apart, jittered."""
    steps = 0.01 * torch.arange(side)
    points = torch.cartesian_prod(steps, steps, steps)
    return points + torch.tensor(at) + 0.001 * torch.rand(len(points), 3)


def test_what_hangs_on_nothing_is_a_cluster_of_its_own():
    torch.manual_seed(0)
    found = clusters(torch.cat([grid(8, (0, 0, 0)), grid(3, (0.3, 0, 0)), grid(1, (0, 0.3, 0))]))
    assert [len(found[part].unique()) for part in (slice(512), slice(512, 539))] == [1, 1]
    assert len(found.unique()) == 3


def test_a_cluster_stays_where_one_of_it_is_seen_by_enough_cameras():
    torch.manual_seed(0)
    points = torch.cat([grid(8, (0, 0, 0)), grid(3, (0.3, 0, 0)), grid(3, (0, 0.3, 0))])
    seen = torch.cat([torch.ones(512), torch.full((54,), 0.2)])
    seen[:100] = 0.1  # few see them, but they belong to the large one
    seen[5] = 0.0  # nobody sees it
    seen[540] = 0.5
    gone = debris(points, seen)
    assert gone.nonzero().flatten().tolist() == [5, *range(512, 539)]


def test_one_camera_alone_sees_enough():
    torch.manual_seed(0)
    points = torch.cat([grid(8, (0, 0, 0)), grid(3, (0.3, 0, 0))])
    assert not debris(points, torch.ones(539)).any()


def test_seen_is_the_best_share_of_cameras_over_frames(data):
    avatar = tiny_session(data).avatar
    with torch.no_grad():
        avatar.means[0] = torch.tensor([0.0, 50.0, 0.0])
    seen = seen_share(avatar, data)
    assert seen[0] == 0 and seen[1:].min() > 0.3 and seen.max() == 1
    takes = []
    for take in data.sequences:
        K = take.cameras.K.clone()
        K[0, 0, 2] += 1000.0  # one of four looks past the head
        takes.append(replace(take, cameras=replace(take.cameras, K=K)))
    assert seen_share(avatar, replace(data, sequences=tuple(takes))).max() == 0.75


def test_sweeping_takes_rows_and_their_moments_and_leaves_the_rest_as_it_was(data):
    session = tiny_session(data)
    avatar, optimizer = session.avatar, session.optimizer
    for name in avatar.ROWS:
        getattr(avatar, name).grad = torch.ones_like(getattr(avatar, name))
    optimizer.step()
    with torch.no_grad():
        avatar.means[3] = torch.tensor([0.0, 50.0, 0.0])
    kept = [row for row in range(len(avatar)) if row != 3]
    before = {name: getattr(avatar, name).detach().clone() for name in avatar.ROWS}
    assert sweep(avatar, optimizer, data) == 1
    for name in avatar.ROWS:
        rows = getattr(avatar, name)
        assert torch.equal(rows, before[name][kept])
        assert optimizer.state[rows]["exp_avg"].shape == rows.shape
    assert sweep(avatar, optimizer, data) == 0
