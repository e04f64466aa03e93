"""The public datasets there are: where they come from, on which terms, and what is to be fetched.

Facts only. A size or checksum stands here if somebody who can be named published it; where nobody
did there is none, and :mod:`orchestration.downloads.pins` takes over. ``docs/datasets.md`` names the
sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from orchestration.downloads import layouts
from orchestration.downloads.layouts import Layout
from orchestration.downloads.transfer import UNKNOWN, Content
from tevad_model.errors import InputError


@dataclass(frozen=True)
class RemoteFile:
    """A file that plain HTTP brings.

    Attributes:
        url: its official address.
        content: its size and SHA-256, as far as they are published.
        videos: whether it is the archive of the videos, which archives fetched by hand replace.
        also: other names that its authors gave it.
    """

    url: str
    content: Content = UNKNOWN
    videos: bool = True
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.url).name

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names."""
        return (self.name, *self.also)


@dataclass(frozen=True)
class ByHand:
    """A file that somebody has to fetch: it lies behind a form or in a file share.

    Attributes:
        pattern: found in the name of a file that is it, in any case.
        what: it is.
    """

    pattern: str
    what: str

    def is_met_by(self, name: str) -> bool:
        """Whether a file of this name is it."""
        return re.search(self.pattern, name, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Entry:
    """A dataset of the catalogue.

    Attributes:
        name: as the command line has it.
        title: as its authors call it.
        home: its official page.
        citation: the paper to cite.
        terms: what is known of its licence.
        size: what is known of its size, in words.
        files: what is fetched.
        by_hand: what is not.
        steps: how to fetch all of it by hand.
        layout: reads it once it is unpacked.
        skip: a pattern of members that are left packed.
    """

    name: str
    title: str
    home: str
    citation: str
    terms: str
    size: str
    files: tuple[RemoteFile, ...]
    steps: str
    layout: Layout = field(repr=False)
    by_hand: tuple[ByHand, ...] = ()
    skip: str = ""

    def wants(self, member: str) -> bool:
        """Whether a member of an archive is to be unpacked."""
        return not (self.skip and re.search(self.skip, member))

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{self.name}: {self.title}",
                f"  home:  {self.home}",
                f"  size:  {self.size}",
                f"  cite:  {self.citation}",
                f"  terms: {self.terms}",
            )
        )


_ARCHIVE = r"\.(zip|tar|tgz|tar\.\w+)$"

PED2 = Entry(
    name="ped2",
    title="UCSD Anomaly Detection Dataset, Ped2",
    home="http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm",
    citation="Mahadevan, Li, Bhalodia, Vasconcelos: Anomaly Detection in Crowded Scenes, CVPR 2010",
    terms="UCSD states no licence. Cite the paper; do not redistribute.",
    size="0.74 GB packed (Ped1 and Ped2); only Ped2 is unpacked",
    files=(
        RemoteFile(
            "http://www.svcl.ucsd.edu/projects/anomaly/UCSD_Anomaly_Dataset.tar.gz",
            Content(
                740_306_953, "2329af326951f5097fdd114c50e853957d3e569493a49d22fc082a9fd791915b"
            ),
        ),
    ),
    steps="Fetch UCSD_Anomaly_Dataset.tar.gz from the home page.",
    layout=layouts.ped2,
    skip=r"(^|/)UCSDped1/",
)

_UCF_REPOSITORY = "https://raw.githubusercontent.com/WaqasSultani/AnomalyDetectionCVPR2018"

UCF_CRIME = Entry(
    name="ucf-crime",
    title="UCF-Crime: Real-world Anomaly Detection in Surveillance Videos",
    home="https://www.crcv.ucf.edu/projects/real-world/",
    citation="Sultani, Chen, Shah: Real-world Anomaly Detection in Surveillance Videos, CVPR 2018",
    terms="No licence is known. The recordings come from video sites, whose users hold the rights. "
    "Read the home page; cite the paper; do not redistribute.",
    size="102.96 GB packed, 104.9 GB unpacked; both are on the disk for a while",
    files=(
        RemoteFile(
            "https://www.crcv.ucf.edu/data1/chenchen/UCF_Crimes.zip", Content(102_957_372_377)
        ),
        # The list inside the archive is empty; the authors' repository has it.
        RemoteFile(
            f"{_UCF_REPOSITORY}/262e89c1ef9f3c475de6baefbe51487746d46e13/Anomaly_Train.txt",
            videos=False,
        ),
        RemoteFile(
            f"{_UCF_REPOSITORY}/e07285474cfe0b86fea6ef5b110357ae102e7930/"
            "Temporal_Anomaly_Annotation.txt",
            videos=False,
            also=("Temporal_Anomaly_Annotation_for_Testing_Videos.txt",),
        ),
    ),
    steps="Fetch UCF_Crimes.zip (or its parts, from the Dropbox folder the home page links), "
    "Anomaly_Train.txt, Anomaly_Test.txt and "
    "Temporal_Anomaly_Annotation_for_Testing_Videos.txt from the home page.",
    layout=layouts.ucf_crime,
    skip=r"(^|/)(z_Normal_Videos_event|Action_\w+_splits)/",
)

SHANGHAITECH = Entry(
    name="shanghaitech",
    title="ShanghaiTech Campus, in the weakly supervised split of Zhong et al.",
    home="https://svip-lab.github.io/dataset/campus_dataset.html",
    citation="Liu, Luo, Lian, Gao: Future Frame Prediction for Anomaly Detection, CVPR 2018; split: "
    "Zhong et al.: Graph Convolutional Label Noise Cleaner, CVPR 2019",
    terms="BSD 2-Clause according to the documentation of anomalib. Read the home page.",
    size="not published; users report about 23 GB",
    files=(
        RemoteFile(
            "http://101.32.75.151:8181/dataset/shanghaitech.tar.gz",
            Content(sha256="c13a827043b259ccf8493c9d9130486872992153a9d714fe229e523cd4c94116"),
        ),
    ),
    by_hand=(
        ByHand(r"train.*\.(txt|list)$", "the list of the training split (238 videos)"),
        ByHand(r"test.*\.(txt|list)$", "the list of the test split (199 videos)"),
    ),
    steps="Fetch shanghaitech.tar.gz from a file share that the home page links (join its parts by "
    "`cat shanghaitech.tar.gz.a? > shanghaitech.tar.gz`). Take the two lists of the split from any "
    "weakly supervised method's code: text files with 'train' and 'test' in their names, of which a "
    "line starts with a video's name such as 01_0014.",
    layout=layouts.shanghaitech,
    skip=r"(^|/)test_pixel_mask/",
)

XD_VIOLENCE = Entry(
    name="xd-violence",
    title="XD-Violence",
    home="https://roc-ng.github.io/XD-Violence/",
    citation="Wu et al.: Not only Look, but also Listen: Learning Multimodal Violence Detection "
    "under Weak Supervision, ECCV 2020",
    terms="No licence is known. Scenes come from films and YouTube, whose owners hold the rights. "
    "Read the home page; cite the paper; do not redistribute.",
    size="not published; users report about 83 GB packed",
    files=(
        RemoteFile("https://roc-ng.github.io/XD-Violence/images/annotations.txt", videos=False),
    ),
    by_hand=(
        ByHand(rf"^(?!.*test).*{_ARCHIVE}", "the archives of the training videos"),
        ByHand(rf"test.*{_ARCHIVE}", "the archive of the test videos, with 'test' in its name"),
    ),
    steps="Fetch the five archives of training videos (1-1004.zip to 3320-3954.zip) and the one of "
    "test videos from a file share that the home page links.",
    layout=layouts.xd_violence,
)

SURVEILLANCE_FIGHTS = Entry(
    name="surveillance-fights",
    title="Surveillance Camera Fight Dataset",
    home="https://github.com/sayibet/fight-detection-surv-dataset",
    citation="Aktı, Tataroğlu, Ekenel: Vision-based Fight Detection from Surveillance Cameras, "
    "IPTA 2019",
    terms="The repository carries the MIT licence. Clips come from YouTube and surveillance videos, "
    "whose owners may hold further rights.",
    size="not published (300 clips of 2 s)",
    files=(
        RemoteFile(
            "https://github.com/sayibet/fight-detection-surv-dataset/archive/refs/heads/master.zip"
        ),
    ),
    steps="Fetch the repository as a .zip (Code, Download ZIP) from the home page.",
    layout=layouts.surveillance_fights,
)

ENTRIES = {
    entry.name: entry for entry in (PED2, UCF_CRIME, SHANGHAITECH, XD_VIOLENCE, SURVEILLANCE_FIGHTS)
}


def find(name: str) -> Entry:
    """The entry of this name.

    Raises:
        InputError: if there is none.
    """
    if name not in ENTRIES:
        raise InputError(f"no dataset {name!r} in the catalogue; there are {', '.join(ENTRIES)}")
    return ENTRIES[name]
