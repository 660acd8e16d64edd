"""Hostile files: nothing but the input is opened, nothing is asked of a network, bombs stay small.

Canaries show what a decoder reads: a video whose pictures would come through, a server that counts
its visitors, and, where strace can be used, the list of all that the process opens.
"""

import http.server
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest

from elo_tf.data import media

ROOT = pathlib.Path(__file__).resolve().parents[3]

SECRET = 200
OWN = 60

DECODE = """
import json, sys, time
import av
from elo_tf.data import media
for path in sys.argv[2:]:
    began = time.monotonic()
    try:
        if sys.argv[1] == "ours":
            clips = list(media.decode_clips(path, fps=10, min_side=32))
            result = [float(frame.mean()) for clip in clips for frame in clip.frames]
        else:  # As if nobody had thought of it.
            with av.open(path, timeout=(3, 3), options={
                    "protocol_whitelist": "file,http,tcp,crypto,data", "safe": "0",
                    "enable_drefs": "1", "use_absolute_path": "1"}) as container:
                result = [float(frame.to_ndarray(format="gray").mean())
                          for frame in container.decode(video=0)]
    except media.MediaError as error:
        result = error.reason
    except (av.FFmpegError, IndexError) as error:
        result = "error"
    print(json.dumps([result, time.monotonic() - began]))
"""


def decode(path, **options):
    return list(media.decode_clips(path, **({"fps": 10, "min_side": 32} | options)))


def reason(path, **options):
    began = time.monotonic()
    with pytest.raises(media.MediaError) as error:
        decode(path, **options)
    assert error.value.detail
    assert time.monotonic() - began < 5
    return error.value.reason


@pytest.fixture(scope="module")
def server():
    """(address of a server on this machine, list of what it was asked for)."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}", asked
    listener.shutdown()
    thread.join()
    listener.server_close()


def raw_video(path, value, alias=None):
    """A mov of uncompressed frames; with `alias`, its data reference names that file."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for _ in range(5):
            picture = np.full((48, 64, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    if alias is None:
        return path
    name = os.fsencode(alias)
    entry = (b"\0" * 10 + bytes([3]) + b"vol".ljust(27, b"\0") + b"\0" * 12
             + bytes([min(len(alias.name), 63)]) + alias.name.encode()[:63].ljust(63, b"\0")
             + b"\0" * 16 + struct.pack(">hh", 1, 1) + b"\0" * 16
             + struct.pack(">hH", 2, len(name)) + name + b"\0" * (len(name) % 2)
             + struct.pack(">hH", -1, 0))
    entry = struct.pack(">I4sI", 12 + len(entry), b"alis", 0) + entry
    content = bytearray(path.read_bytes())
    place = content.rindex(b"url \0\0\0\1") - 4
    content[place:place + 12] = entry
    # The boxes around it grow; the pictures lie before them.
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        start = content.rindex(box, 0, place) - 4
        (size,) = struct.unpack(">I", content[start:start + 4])
        content[start:start + 4] = struct.pack(">I", size + len(entry) - 12)
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def references(tmp_path_factory, server, make_video, gray_frames):
    """(folder of files that name the secret or the server, the secret)."""
    folder = tmp_path_factory.mktemp("references")
    secret = make_video(folder / "canary.mp4", gray_frames([SECRET] * 20))
    raw_secret = raw_video(folder / "canary.mov", SECRET)
    url = server[0]
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "hls_near": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ncanary.mp4\n#EXT-X-ENDLIST\n",
        "hls_web": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{url}/a.ts\n#EXT-X-ENDLIST\n",
        "hls_key": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
                   f'#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n#EXTINF:2,\ncanary.mp4\n',
        "concat": f"ffconcat version 1.0\nfile {secret}\n",
        "concat_near": "ffconcat version 1.0\nfile canary.mp4\n",
        "concat_web": f"ffconcat version 1.0\nfile {url}/b.mp4\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
                'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4">'
                f'<Representation id="1" bandwidth="1"><BaseURL>{url}/c.mp4</BaseURL>'
                "</Representation></AdaptationSet></Period></MPD>",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/'
               '2067-3/2016"><Id>urn:uuid:0</Id></CompositionPlaylist>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
               "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}/d.wmv"/></entry></asx>',
        "pls": f"[playlist]\nFile1={url}/e.mp4\nNumberOfEntries=1\n",
        "rtsp": f"rtsptext\n{url.replace('http', 'rtsp')}/f\n",
        "m3u": f"{secret}\n{url}/g.mp4\n",
    }
    for name, text in texts.items():
        for suffix in ("mp4", "m3u8", "ffconcat", "mpd", "sdp", "mkv"):
            (folder / f"{name}.{suffix}").write_text(text)
    raw_video(folder / "alias.mov", OWN, alias=raw_secret)
    raw_video(folder / "alias.mp4", OWN, alias=raw_secret)
    return folder, secret


def inputs(folder):
    return sorted(path for path in folder.iterdir() if not path.name.startswith("canary"))


def test_files_that_name_others_lead_nowhere(references, server):
    folder, _ = references
    server[1].clear()
    for path in inputs(folder):
        assert reason(path) in ("undecodable", "unknown_container"), path.name
    time.sleep(0.1)
    assert not server[1]


def trace(tmp_path, mode, paths):
    """([what came of each path], text of the system calls that open files or connections)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "calls"
    command = ["strace", "-f", "-qq", "-s", "4096", "-o", str(log), "-e",
               "trace=open,openat,openat2,socket,connect,execve",
               sys.executable, "-c", DECODE, mode, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, timeout=60)
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip("strace is not allowed here")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], log.read_text()


def test_no_call_opens_anything_else(references, tmp_path):
    folder, _ = references
    results, calls = trace(tmp_path, "ours", inputs(folder))
    assert len(results) == len(inputs(folder))
    assert max(seconds for _, seconds in results) < 5
    opened = [line for line in calls.splitlines() if str(folder) in line and "execve" not in line]
    assert len(opened) >= len(inputs(folder))
    assert not [line for line in opened if "canary" in line]
    assert "AF_INET" not in calls
    assert {result for result, _ in results} <= {"undecodable", "unknown_container"}


def test_the_canaries_sing_for_a_decoder_that_follows(references, server, tmp_path):
    """Otherwise the tests above could not fail."""
    folder, _ = references
    server[1].clear()
    paths = [folder / name for name in ("hls.m3u8", "hls_web.m3u8", "concat.ffconcat",
                                        "concat_near.mp4", "alias.mov")]
    results, calls = trace(tmp_path, "careless", paths)
    read = {path.stem: result for path, (result, _) in zip(paths, results, strict=True)}
    for name in ("hls", "concat", "concat_near", "alias"):
        assert np.mean(read[name]) == pytest.approx(SECRET, abs=3), name
    assert "/a.ts" in server[1]
    assert "canary.mp4" in calls and "canary.mov" in calls and "AF_INET" in calls


def test_what_is_no_regular_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.mp4")
    os.mkdir("folder.mp4")
    os.symlink("b.mp4", "a.mp4")
    os.symlink("a.mp4", "b.mp4")
    os.symlink("nowhere.mp4", "dangling.mp4")
    os.symlink("/dev/zero", "endless.mp4")
    assert reason("pipe.mp4") == "not_a_file"
    assert reason("folder.mp4") == "not_a_file"
    assert reason("a.mp4") == "unreadable"
    assert reason("dangling.mp4") == "missing_file"
    assert reason("endless.mp4") == "not_a_file"
    assert reason("x" * 300 + ".mp4") == "unreadable"


def png(width, height):
    """A black picture that is small as a file, whatever its size."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
            + chunk(b"IEND", b""))


def pictures(codec, pix_fmt, count=3, options=None):
    """Coded frames of 64x48 pixels."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 64, 48, pix_fmt
    context.time_base = Fraction(1, 10)
    context.options = options or {}
    packets = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), OWN, np.uint8))
        frame.pts = i
        packets += context.encode(frame)
    return [bytes(packet) for packet in packets + context.encode(None)]


def mux(path, codec, pix_fmt, packets, options=None):
    """A file of coded frames, whatever they are, that declares 64x48 pixels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        container.start_encoding()
        for i, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 10)
            packet.pts = packet.dts = i
            packet.is_keyframe = True
            container.mux(packet)
    return path


def jpeg_of_size(data, width, height):
    place = data.index(b"\xff\xc0")
    return data[:place + 5] + struct.pack(">HH", height, width) + data[place + 9:]


def h264_of_size(data, blocks):
    """Replaces the size in the parameter sets of a baseline stream, in units of 16 pixels."""
    units = data.split(b"\0\0\1")
    for i, unit in enumerate(units):
        if not unit or unit[0] & 31 != 7:
            continue
        bits = "".join(f"{byte:08b}" for byte in unit[4:].replace(b"\0\0\3", b"\0\0"))
        place = 0

        def number():
            nonlocal place
            zeros = bits.index("1", place) - place  # noqa: B023
            place += 2 * zeros + 1
            return int(bits[place - zeros - 1:place], 2) - 1  # noqa: B023

        number()
        number()
        if number() == 0:
            number()
        number()
        place += 1
        before = bits[:place]
        number()
        number()
        size = f"{blocks:b}".rjust(2 * len(f"{blocks:b}") - 1, "0")
        changed = before + size * 2 + bits[place:]
        changed += "0" * (-len(changed) % 8)
        units[i] = unit[:4] + int(changed, 2).to_bytes(len(changed) // 8, "big")
    return b"\0\0\1".join(units)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """Small files whose frames are huge."""
    folder = tmp_path_factory.mktemp("bombs")
    big = png(30000, 30000)
    jpegs = [jpeg_of_size(data, 30000, 30000) for data in pictures("mjpeg", "yuvj420p")]
    files = [mux(folder / f"png.{suffix}", "png", "rgb24", [big] * 3) for suffix in ("mov", "avi")]
    files += [mux(folder / f"jpeg.{suffix}", "mjpeg", "yuvj420p", jpegs)
              for suffix in ("mov", "avi", "mkv")]
    options = {"profile": "baseline", "g": "1"}
    frames = [h264_of_size(data, 1000)
              for data in pictures("libx264", "yuv420p", options=options)]
    files += [mux(folder / f"h264.{suffix}", "libx264", "yuv420p", frames, options=options)
              for suffix in ("mp4", "mkv", "ts", "flv", "h264")]
    assert all(path.stat().st_size < 500_000 for path in files)
    return files


MEASURE = """
import resource, sys
from elo_tf.data import media
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        list(media.decode_clips(path, fps=10, min_side=32))
    except media.MediaError as error:
        print(error.reason)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_decompression_bombs_are_refused_before_they_go_off(bombs):
    for path in bombs:
        assert reason(path) in ("too_large", "undecodable"), path.name
        assert path.stem != "h264" or reason(path) == "too_large", path.name
    done = subprocess.run([sys.executable, "-c", MEASURE, *map(str, bombs)], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *reasons, megabytes = done.stdout.split()
    assert len(reasons) == len(bombs)
    # One such frame has 900 million pixels, of H.264 256 million.
    assert int(megabytes) < 200


def test_frames_that_become_huge_are_left_out(tmp_path):
    small, big = pictures("png", "rgb24"), png(30000, 30000)
    path = mux(tmp_path / "a.mov", "png", "rgb24", small + [big] * 3 + small)
    (clip,) = decode(path)
    assert clip.damaged
    assert len(clip.frames) == 9
    np.testing.assert_allclose([frame.mean() for frame in clip.frames], OWN, atol=2)
    jpegs = pictures("mjpeg", "yuvj420p")
    bigger = [jpeg_of_size(data, 30000, 30000) for data in jpegs]
    (clip,) = decode(mux(tmp_path / "b.avi", "mjpeg", "yuvj420p", jpegs + bigger))
    assert clip.damaged
    assert {frame.shape for frame in clip.frames} == {(32, 43, 3)}


def test_an_animation_that_loops_for_ever_is_shown_once(tmp_path):
    path = tmp_path / "a.gif"
    with av.open(str(path), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for value in (OWN, SECRET, OWN):
            picture = np.full((48, 64), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))
    assert b"NETSCAPE2.0\x03\x01\0\0" in path.read_bytes()
    (clip,) = decode(path)
    assert len(clip.frames) == 3


def test_a_million_tiny_frames_end_at_the_limit(tmp_path):
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W16 H16 F100000:1 C420\n"
                     + (b"FRAME\n" + bytes(384)) * 20_000)
    limits = media.Limits(max_frames=5000)
    assert reason(path, limits=limits) == "too_many_frames"
