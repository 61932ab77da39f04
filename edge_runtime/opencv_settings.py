"""How OpenCV runs in a process of ours."""


def prepare_opencv() -> None:
    """Let OpenCV work on the calling thread and write no lines of its own.

    Frames are small, so its threads cost more than they give; and while they wait they take the
    cores from the encoder (measured: 75 ms a frame with them, 45 without, on two cores).
    """
    import cv2

    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
