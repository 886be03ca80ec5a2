"""The digits of scikit-learn: 1,797 scans of handwriting, to try everything without a download."""

import cv2
import numpy as np

from bottlefit_jax.data.source import Source

SIZE = 32
_VAL_EVERY = 5


class Digits(Source):
    """8 x 8 scans of the ten digits, enlarged to 32 x 32 RGB; every fifth scan of a digit is in `val`."""

    def __init__(self, *, split: str, on_bad_image: str = "error"):
        from sklearn.datasets import load_digits  # here, because importing scikit-learn takes a second

        scans, target = load_digits(return_X_y=True)
        super().__init__("digits", split=split, class_names=[str(n) for n in range(10)], on_bad_image=on_bad_image)
        labels = np.asarray(target, np.int32)
        in_val = np.zeros(len(labels), bool)
        for digit in range(10):
            in_val[np.flatnonzero(labels == digit)[_VAL_EVERY - 1 :: _VAL_EVERY]] = True
        chosen = in_val if split == "val" else ~in_val
        scans = np.asarray(scans, np.float32)[chosen].reshape(-1, 8, 8) * (255 / 16)
        self._images = np.stack([_enlarge(scan) for scan in scans])  # [n, 32, 32, 3]
        self._labels = labels[chosen]

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return the scan as uint8 [32, 32, 3], and its digit."""
        return self._images[index], int(self._labels[index])

    def image_name(self, index: int) -> str:
        """Return, for instance, 'digits/val[7]'."""
        return f"digits/{self.split}[{index}]"


def _enlarge(scan: np.ndarray) -> np.ndarray:
    grey = cv2.resize(scan, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)
