"""How well one camera and another person drive an avatar.

    python benchmarks/bench_drive.py --avatars runs/avatar-031 runs/avatar-054
        --tracks runs/track-031 runs/track-054 [--landmarker face_landmarker.task]
        [--dlib dlib_face_recognition_resnet_model_v1.dat] [--rows clips,mono,cross,fast,live,face]

Clips: real footage drives both avatars (the mp4s stay in ``--out`` to be looked at). Mono: the
front video of a rendered capture as the driver, against exact ground truth. Cross: 031 drives 054
and back (``drive_cross.py``). Fast: tracking alone, frame by frame. Live: the loop fed by a looped
clip. Face: what a detector and an identity network see in the driven pictures. Writes
``results/drive-<machine>.json``; rows that were not asked for stay as they were.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _results import ROOT, row, write_results
from drive_cross import cross_rows
from drive_faces import face_rows, motion_rows
from tracking_truth import CAPTURE, frame_distances_mm, monocular_scaling, pose_errors

from npga.capture import open_capture
from npga.core.config import compose_config
from npga.core.device import flush_denormals, resolve_device
from npga.core.similarity import Similarity
from npga.core.video import VideoWriter
from npga.drive.config import DriveConfig
from npga.drive.driver import Equipment, face_chooser
from npga.drive.source import constant_rate, frame_rate, read_frames
from npga.drive.stage import Stage
from npga.drive.track import TrackedVideo, track_video
from npga.drive.video import drive_video
from nphm_tracking import Track, load_track
from nphm_tracking.result import SequenceTrack

CLIPS = ROOT.parent / "shared" / "media"
FRONT = "222200037"
SEQUENCES = ("EXP-4-lips", "EMO-1-shout+laugh", "SEN-09-frown_events_bad", "FREE")
MEASURE_EVERY = 6
POINTS = 400
WARM = 10
LIVE_FPS = 60.0
"""Of the camera that a GPU is fed by: twice the bar, so that the camera is not what is measured."""
ROWS = ("clips", "mono", "cross", "fast", "live", "face")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--avatars", nargs=2, default=["runs/avatar-031", "runs/avatar-054"])
    add("--tracks", nargs=2, default=["runs/track-031", "runs/track-054"])
    add("--clips", type=Path, default=CLIPS)
    add("--landmarker", help="MediaPipe .task file; what is installed where not given")
    add("--dlib", help="dlib's face recognition network, for CSIM (needs dlib)")
    add("--out", type=Path, default=Path("runs/drive"))
    add("--live-seconds", type=float, default=20.0)
    add("--rows", default=",".join(ROWS))
    return parser.parse_args()


def settings(args: argparse.Namespace, *words: str) -> DriveConfig:
    """Settings of npga drive."""
    given = [] if args.landmarker is None else [f"landmarker={args.landmarker}"]
    return compose_config(DriveConfig, "drive", [*words, *given])


def clips_rows(args: argparse.Namespace) -> list[dict]:
    """Real footage on both avatars."""
    found, total, jumps, literal, jitters = 0, 0, [], [], []
    for avatar, own in zip(args.avatars, args.tracks, strict=True):
        for clip in sorted(args.clips.glob("*.mp4")):
            out = args.out / f"{clip.stem}-{Path(avatar).name}.mp4"
            words = [f"avatar={avatar}", f"avatar_track={own}"]
            config = settings(args, f"video={clip}", f"out={out}", "overwrite=true", *words)
            tracked, driven = drive_video(config)
            stage = Stage.open(config)
            found += int(tracked.take.ok.sum())
            total += sum(face is not None for face in tracked.seen.faces)
            motion = motion_rows(stage, tracked, driven, load_track(own))
            jumps.append(motion.jump)
            literal.append(motion.step_ratio)
            jitters.append(motion.jitter)
    clips = len(list(args.clips.glob("*.mp4")))
    note = f"{clips} clips on {len(args.avatars)} avatars; frames in which a face was detected"
    what = (
        "largest step of the driven landmarks, as a camera sees them, beyond the driver's largest "
        "in the last five frames and the next, over the clip's median step"
    )
    raw = "largest step over the median step; the detector's own landmarks have 4.9, 5.4 and 17.4"
    return [
        row("clips_tracked_percent", 100 * found / total, "%", ">= 97", note),
        row("clips_worst_jump", max(jumps), "", "<= 3", what),
        row("clips_worst_step_ratio", max(literal), "", "", raw),
        row("clips_jitter", float(np.mean(jitters)), "eyes", "",
            "mean second difference of driven landmarks, eye distances"),
    ]  # fmt: skip


def mono_tracks(
    args: argparse.Namespace, participant: str, avatar: str, known: str | None, mode: str
) -> list[Track]:
    """The front videos of a capture, each as `npga drive` tracks it, in the capture's world."""
    capture = open_capture(str(CAPTURE), participant)
    tracks = []
    for name in SEQUENCES:
        info = capture.sequence(name)
        camera = capture.cameras([FRONT], info.width, info.height)
        K = camera.K[0]
        video = CAPTURE / participant / "sequences" / name / "images" / f"cam_{FRONT}.mp4"
        config = settings(
            args, f"video={video}", f"avatar={avatar}", f"mode={mode}", f"focal={float(K[0, 0])}",
            f"centre=[{float(K[0, 2])},{float(K[1, 2])}]",
            *([] if known is None else [f"driver_track={known}"]),
        )  # fmt: skip
        tracked = track_video(config, Equipment.open())
        take = in_world(tracked, camera.cam_from_world[0])
        tracks.append(replace(tracked.track, sequences={name: take}, participant=participant))
    return tracks


def in_world(tracked: TrackedVideo, cam_from_world: torch.Tensor) -> SequenceTrack:
    """Poses before the driver's camera -> the capture's world."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    world = torch.linalg.inv(cam_from_world.double()).float() @ flip
    motion = Similarity.from_matrix(world)
    take = tracked.take
    count = len(take)
    poses = Similarity(
        motion.scale.expand(count), motion.rotation.expand(count, 3, 3),
        motion.translation.expand(count, 3),
    ).compose(take.world_from_head)  # fmt: skip
    return SequenceTrack(take.frames, take.z_exp, poses, take.residual_mm, take.ok, take.fps)


def mono_rows(args: argparse.Namespace) -> list[dict]:
    """The same person before one camera, truth known; each take on its own."""
    model = Equipment.open().model
    rows = []
    for mode, whose, bars in (
        ("accurate", "known", ("<= 2.5", "<= 2.5")),
        ("accurate", "unknown", ("", "")),
        ("fast", "known", ("", "")),
        ("fast", "unknown", ("", "")),
    ):
        surfaces, degrees, details = [], [], []
        for avatar, own in zip(args.avatars, args.tracks, strict=True):
            participant = load_track(own).participant
            known = own if whose == "known" else None
            found = [
                mono_errors(model, track)
                for track in mono_tracks(args, participant, avatar, known, mode)
            ]
            near = torch.cat([one[0] for one in found])
            surfaces.append(near)
            degrees += [one[1] for one in found]
            factors = ", ".join(f"{one[2]:.3f}" for one in found)
            details.append(f"{participant}: {float(near.median()):.2f} mm, factors {factors}")
        suffix = "" if bars[0] else f".{mode}.{whose}"
        note = f"mode={mode}, face {whose} to the tracker; " + "; ".join(details)
        surface, turn = torch.cat(surfaces).median(), torch.cat(degrees).median()
        rows += [
            row(f"mono_surface_median_mm{suffix}", float(surface), "mm", bars[0], note),
            row(f"mono_rotation_deg{suffix}", float(turn), "deg", bars[1], "median of frames"),
        ]
    return rows


def mono_errors(model, track: Track) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Distances of the seen face in mm, degrees, and the one scale factor of the take."""
    camera = open_capture(str(CAPTURE), track.participant).cameras([FRONT])
    scaling = monocular_scaling(model, track, camera.centres_world()[0].float())
    near, turned = [], []
    for name, take in track.sequences.items():
        turned.append(pose_errors(track.participant, name, take).degrees)
        for number in torch.nonzero(take.ok).flatten()[::MEASURE_EVERY].tolist():
            distance, seen = frame_distances_mm(model, track, name, number, scaling, POINTS)
            near.append(distance[seen])
    return torch.cat(near), torch.cat(turned), scaling.factor


def fast_rows(args: argparse.Namespace) -> list[dict]:
    """Decoding, detection and following, one frame after the other, no drawing."""
    clip = next(iter(sorted(args.clips.glob("*472f.mp4"))))
    config = settings(args, f"video={clip}", f"avatar={args.avatars[0]}")
    equipment = Equipment.open()
    tracked = track_video(config, equipment)  # calibrates
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    calibration = tracked.calibration
    camera = tracked.seen.camera(config.focal, config.centre)
    follower = equipment.follower(calibration, camera)
    chooser = face_chooser(config.landmarker, 1)
    times = []
    frames = constant_rate(read_frames(clip), frame_rate(clip))
    while True:
        began = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            break
        face = chooser(frame.image)
        if face is not None:
            equipment.follow(follower, face)
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    spent = np.array(times[WARM:])
    note = f"640x360, {len(spent)} frames: decode, detect, solve; calibrated before"
    return [
        row("fast_fps", float(1 / spent.mean()), "1/s", ">= 15", note),
        row("fast_latency_p95_ms", float(1000 * np.quantile(spent, 0.95)), "ms", "", "stated"),
    ]


def live_rows(args: argparse.Namespace) -> list[dict]:
    """The live loop, fed by a looped clip."""
    from npga.drive.live import run_live

    gpu = resolve_device("auto").type == "cuda"
    clip = next(iter(sorted(args.clips.glob("*472f.mp4"))))
    width, height = (550, 802) if gpu else (275, 401)
    if gpu:
        clip = faster(clip, args.out)
    words = [f"avatar={args.avatars[0]}", f"avatar_track={args.tracks[0]}", "show=none"]
    size = [f"width={width}", f"height={height}", f"seconds={args.live_seconds}", "beside=false"]
    report = run_live(settings(args, f"camera={clip}", *words, *size))
    note = f"{width}x{height} with the CNN, {report.frames} pictures, camera not counted"
    note += f" (it sends {report.camera_fps:.0f} a second); " if gpu else "; "
    note += f"{report.latency_ms}"
    values = [report.fps, report.latency_ms.total.p95]
    rows = [
        row("live_gpu_fps", values[0] if gpu else None, "1/s", ">= 30",
            note if gpu else "no CUDA machine at hand"),
        row("live_gpu_latency_p95_ms", values[1] if gpu else None, "ms", "<= 80",
            note if gpu else "no CUDA machine at hand"),
    ]  # fmt: skip
    if not gpu:
        rows += [
            row("live_cpu_fps", values[0], "1/s", "", note),
            row("live_cpu_latency_p95_ms", values[1], "ms", "", note),
        ]
    return rows


def faster(clip: Path, folder: Path) -> Path:
    """The pictures of a clip at LIVE_FPS."""
    out = folder / f"{clip.stem}-{LIVE_FPS:.0f}.mp4"
    with VideoWriter(out, LIVE_FPS) as writer:
        for frame in read_frames(clip):
            writer.write(frame.image)
    return out


def main() -> None:
    """Run what was asked for; every group is written as soon as it is measured."""
    args = arguments()
    flush_denormals()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    args.out.mkdir(parents=True, exist_ok=True)
    protocol = {
        "data": "three real clips (README, credits); rendered captures 031 and 054",
        "avatars": "npga fit at 275x401 and 276x402, FREE held out",
        "mono": f"camera {FRONT}, focal length and principal point given; {', '.join(SEQUENCES)}; "
        f"every {MEASURE_EVERY}. frame; after one scale factor per take; face vertices that two "
        "cameras see",
        "scores": "Face Landmarker's" if args.landmarker else "none, unless a model is installed",
        "seed": 0,
    }
    wanted = args.rows.split(",")
    for name, measure in (
        ("fast", fast_rows),
        ("live", live_rows),
        ("cross", lambda a: cross_rows(*(load_track(path) for path in a.tracks))),
        ("clips", clips_rows),
        ("mono", mono_rows),
        ("face", lambda a: face_rows(a, lambda *words: settings(a, *words))),
    ):
        if name in wanted:
            write_results("drive", protocol, measure(args), keep=True)


if __name__ == "__main__":
    main()
