"""Small folders built as the public datasets are: same names, same files, same annotation."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np

WriteVideo = Callable[..., Path]

PED2_FRAMES = 6


def pictures(folder: Path, count: int, *, seed: int, suffix: str = ".tif") -> None:
    """A frame folder of noise; each seed has other pictures."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed).integers(0, 255, (count, 48, 64), dtype=np.uint8)
    for index, picture in enumerate(noise, start=1):
        cv2.imwrite(str(folder / f"{index:03}{suffix}"), picture)


def masks(folder: Path, abnormal: Sequence[bool]) -> None:
    """Pixel masks, of which an abnormal one sets a few pixels."""
    folder.mkdir(parents=True)
    for index, is_abnormal in enumerate(abnormal, start=1):
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[10:12, 20:22] = 255 * is_abnormal
        cv2.imwrite(str(folder / f"{index:03}.bmp"), mask)


def recording(path: Path, *, seed: int) -> Path:
    """A video of 8 frames at 24 a second, as ShanghaiTech's recordings are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 24)
        stream.width, stream.height = 64, 48
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


def ped2(folder: Path) -> Path:
    """16 + 12 frame folders; of Test003 all frames are abnormal, of the others those from 2 on."""
    root = folder / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped2"
    for number in range(1, 17):
        pictures(root / "Train" / f"Train{number:03}", PED2_FRAMES, seed=number)
    for number in range(1, 13):
        name = f"Test{number:03}"
        pictures(root / "Test" / name, PED2_FRAMES, seed=100 + number)
        first = 0 if number == 3 else 2
        masks(root / "Test" / f"{name}_gt", [index >= first for index in range(PED2_FRAMES)])
    (root / "Train" / "Train001" / "._001.tif").write_bytes(b"left by macOS")
    (root / "Test" / "UCSDped2.m").write_text("TestVideoFile = {};\n")
    pictures(folder / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped1" / "Train" / "Train001", 2, seed=99)
    return folder


def ucf_crime(folder: Path, write_video: WriteVideo) -> Path:
    """Two train and three test videos of 40 frames, one in the folder that is not listed."""
    videos = folder / "UCF_Crimes" / "Videos"
    for seed, path in enumerate(
        (
            "Abuse/Abuse001_x264.mp4",
            "Training_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4",
            "Abuse/Abuse028_x264.mp4",
            "Arson/Arson011_x264.mp4",
            "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4",
            "z_Normal_Videos_event/Normal_Videos001_x264.mp4",
        )
    ):
        write_video(videos / path, frames=40, seed=seed)
    splits = folder / "UCF_Crimes" / "Anomaly_Detection_splits"
    splits.mkdir()
    (splits / "Anomaly_Train.txt").write_text("")
    (splits / "Anomaly_Test.txt").write_text(
        "Abuse/Abuse028_x264.mp4 \nArson/Arson011_x264.mp4\n"
        "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4\n"
    )
    return folder


UCF_TRAIN = "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n"
UCF_EVENTS = (
    "Abuse028_x264.mp4  Abuse  11  20  -1  -1  \n"
    "Arson011_x264.mp4  Arson  0  5  30  45  \n"
    "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
)


def shanghaitech(folder: Path) -> Path:
    """Two recordings at 24 frames a second, three frame folders with masks of 8 frames."""
    root = folder / "shanghaitech"
    for seed, name in enumerate(("01_001", "01_002")):
        recording(root / "training" / "videos" / f"{name}.avi", seed=seed)
    (root / "testing" / "test_frame_mask").mkdir(parents=True)
    for seed, (name, abnormal) in enumerate(
        {"01_0014": [2, 3, 4, 7], "01_0015": [], "01_0016": [0]}.items()
    ):
        pictures(root / "testing" / "frames" / name, 8, seed=10 + seed, suffix=".jpg")
        mask = np.isin(np.arange(8), abnormal).astype(np.int8)
        np.save(root / "testing" / "test_frame_mask" / f"{name}.npy", mask)
    return folder


def xd_violence(folder: Path, write_video: WriteVideo) -> Path:
    """Two train and two test videos of 30 frames, and ``annotations.txt``."""
    for seed, path in enumerate(
        (
            "1-1004/v=-fOWSLV6Esw__#1_label_A.mp4",
            "3320-3954/Bad.Boys.1995__#00-26-51_00-27-53_label_B2-0-0.mp4",
            "test_videos/videos/Black.Hawk.Down.2001__#01-32-40_01-34-00_label_G-B2-B6.mp4",
            "test_videos/videos/v=ZaDHJxZpTcY__#1_label_A.mp4",
        )
    ):
        write_video(folder / path, frames=30, seed=seed)
    (folder / "annotations.txt").write_text(
        "Black.Hawk.Down.2001__#01-32-40_01-34-00_label_G-B2-B6 3 9 20 99\n"
    )
    return folder


def surveillance_fights(folder: Path, write_video: WriteVideo) -> Path:
    """Four clips of each kind, and what else lies in the repository."""
    root = folder / "fight-detection-surv-dataset-master"
    for index in range(1, 5):
        write_video(root / "fight" / f"fi{index:03}.mp4", seed=index)
        write_video(root / "noFight" / f"nofi{index:03}.mp4", seed=10 + index)
    (root / "README.md").write_text("# Surveillance Camera Fight Dataset\n")
    return folder


def packed(folder: Path, archive: Path) -> Path:
    """A folder's content as a .zip or .tar.gz."""
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for path in members:
                opened.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as opened_tar:
            for path in members:
                opened_tar.add(path, path.relative_to(folder))
    return archive
