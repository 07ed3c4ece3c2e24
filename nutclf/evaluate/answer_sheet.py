"""Contact sheets of answers: the worst mistakes, and where a network looked.

Drawn on `contact_sheet.py`; callers import this file where they draw.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from nutclf.evaluate.contact_sheet import Section, Tile, contact_sheet
from nutclf.evaluate.mistakes import Answer
from nutclf.evaluate.spotlight import spotlight


def mistakes_sheet(shown: Sequence[tuple[Answer, np.ndarray]], title: str, detail: str) -> Figure:
    """The mistakes in their order, each with its picture.

    Args:
      shown: each answer with its picture, uint8 RGB [S, S, 3].
      title, detail: the header's two lines.
    """
    tiles = [(_tile(answer, pixels, number),) for number, (answer, pixels) in enumerate(shown, 1)]
    heading = "The surest wrong answers first"
    return contact_sheet([Section(heading, "There are none.", tiles)], title, detail)


def gradcam_sheet(
    shown: Sequence[tuple[Answer, np.ndarray, np.ndarray]], title: str, detail: str
) -> Figure:
    """Wrong and right answers, beside each picture what spoke for the answer.

    Args:
      shown: each answer with its picture, uint8 RGB [S, S, 3], and its map, float [h, w], 0 to 1.
      title, detail: the header's two lines.
    """
    wrong = [_pair(*each) for each in shown if not each[0].right]
    right = [_pair(*each) for each in shown if each[0].right]
    sections = [
        Section("Wrong answers, the surest first", "There are none.", wrong),
        Section("Right answers, the surest of each class", "There are none.", right),
    ]
    return contact_sheet(sections, title, detail)


def _pair(answer: Answer, pixels: np.ndarray, heat: np.ndarray) -> tuple[Tile, Tile]:
    said = f"what says {answer.y_pred}"
    lit = Tile(spotlight(pixels, heat), said, "", "", alarming=False)
    return _tile(answer, pixels), lit


def _tile(answer: Answer, pixels: np.ndarray, number: int | None = None) -> Tile:
    sure = f"{answer.confidence:.3f}"
    badge = sure if number is None else f"{number}   {sure}"
    is_, said = f"is {answer.y_true}", f"said {answer.y_pred}"
    return Tile(pixels, is_, said, answer.path, badge, alarming=not answer.right)
