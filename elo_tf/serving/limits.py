"""What a request may ask for, and the check of a JPEG's header before anything is decoded."""

import dataclasses

# Frame headers of libjpeg's kinds of JPEG; between them are tables (C4, CC) and a reserved one.
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN = 0xDA
# Encoders write about ten. A file of thousands would keep the decoder busy for minutes.
MOST_SCANS = 64


class RequestError(Exception):
    """A request that cannot be answered, and why, in a sentence for the one who sent it.

    Attributes:
      message: the sentence.
      status: HTTP status code, 4xx or 503.
      retry_after: seconds to wait where it is worth trying again, else None.
    """

    def __init__(self, message: str, status: int = 400, retry_after: int | None = None):
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes above which a request is refused (all our choice).

    Attributes:
      body_bytes: of a request.
      held_bytes: of all requests that are being read or answered, together.
      clips: of a request.
      frames: of a clip.
      pixels: of a frame, raw or JPEG.
      queue: clips accepted and not yet answered.
    """

    body_bytes: int = 64 * 2**20
    held_bytes: int = 512 * 2**20
    clips: int = 64
    frames: int = 1024
    pixels: int = 4096 * 2304
    queue: int = 256

    def check_clips(self, count: int) -> None:
        """Raises RequestError where a request has none or too many."""
        if count < 1:
            raise RequestError("there is no clip in this request")
        if count > self.clips:
            raise RequestError(f"{count} clips in a request; at most {self.clips} are taken")

    def check_frames(self, count: int) -> None:
        """Raises RequestError where a clip has none or too many."""
        if count < 1:
            raise RequestError("a clip needs at least one frame")
        if count > self.frames:
            raise RequestError(f"a clip of {count} frames; at most {self.frames} are taken")

    def check_pixels(self, height: int, width: int) -> None:
        """Raises RequestError where a frame has none or too many."""
        if height < 1 or width < 1:
            raise RequestError("a frame needs at least one pixel")
        if height * width > self.pixels:
            raise RequestError(f"a frame of {height} x {width} pixels; at most {self.pixels} "
                               "pixels are taken")

    def check_jpeg(self, content: bytes) -> None:
        """Raises RequestError where a file is no JPEG, or would decode to too many pixels."""
        self.check_pixels(*jpeg_size(content))
        # Within a scan FF is followed by 00 or a restart, so that this counts markers.
        if content.count(b"\xff\xda") > MOST_SCANS:
            raise RequestError(f"a JPEG of more than {MOST_SCANS} scans")


def jpeg_size(content: bytes) -> tuple[int, int]:
    """Height and width that the header of a JPEG file states.

    It is read as libjpeg reads it: markers in turn, the first frame header counts (a second one is
    an error there).

    Raises:
      RequestError: there is no such header.
    """
    if content[:3] != b"\xff\xd8\xff":
        raise RequestError("a frame is not a JPEG file")
    position, end = 2, len(content)
    while True:
        position = content.find(b"\xff", position)
        while 0 <= position < end and content[position] == 0xFF:
            position += 1
        if not 0 <= position < end:
            break
        marker = content[position]
        position += 1
        if marker == 0 or marker in _NO_LENGTH:
            continue
        if marker in _FRAME_HEADERS and position + 7 <= end:
            return (int.from_bytes(content[position + 3:position + 5], "big"),
                    int.from_bytes(content[position + 5:position + 7], "big"))
        length = int.from_bytes(content[position:position + 2], "big")
        if marker == _START_OF_SCAN or length < 2:
            break
        position += length
    raise RequestError("a frame is not a whole JPEG file: it has no header of a picture")
