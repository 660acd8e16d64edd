"""Parts of the server alone: the batcher, and the header of a JPEG."""

import asyncio
import io
import threading

import numpy as np
import PIL.Image
import pytest

from elo_tf.serving import limits as limits_module
from elo_tf.serving.batching import Batcher, Clip
from elo_tf.serving.limits import Limits, RequestError, jpeg_size


class Model:
    """Doubles numbers, notes its calls, waits where it is told to, and refuses -1."""

    def __init__(self):
        self.calls, self.open = [], threading.Event()
        self.open.set()

    def __call__(self, key, numbers):
        self.calls.append((key, list(numbers)))
        assert self.open.wait(30)
        if -1 in numbers:
            raise RequestError("minus one")
        return [2 * x for x in numbers]


def run(scenario, **options):
    """Runs `scenario(batcher, model)` in an event loop, and closes the batcher."""

    async def main():
        model = Model()
        batcher = Batcher(model, **{"batch_size": 4, "timeout": 0.05, "queue": 20,
                                    "batch_bytes": 1000, **options})
        try:
            return await scenario(batcher, model)
        finally:
            model.open.set()
            await batcher.close()

    return asyncio.run(asyncio.wait_for(main(), 60))


def clips(*numbers, key="a", size=1):
    return [Clip(key, x, size) for x in numbers]


async def waiting(model, calls):
    """Until the model was called so often."""
    while len(model.calls) < calls:
        await asyncio.sleep(0.001)


def test_requests_share_calls_by_key_and_keep_their_order():
    async def scenario(batcher, model):
        results = await asyncio.gather(
            batcher.submit(clips(1, 2)), batcher.submit(clips(5, key="b")),
            batcher.submit(clips(3)), batcher.submit(clips(4, 6, 7)))
        return results, model.calls

    results, calls = run(scenario)
    assert results == [[2, 4], [10], [6], [8, 12, 14]]
    assert calls[0] == ("a", [1, 2, 3, 4])  # full: it need not wait
    assert sorted(calls[1:]) == [("a", [6, 7]), ("b", [5])]


def test_a_bad_clip_fails_alone():
    async def scenario(batcher, model):
        results = await asyncio.gather(
            batcher.submit(clips(1)), batcher.submit(clips(2, -1)), batcher.submit(clips(3)),
            return_exceptions=True)
        return results, model.calls

    results, calls = run(scenario)
    assert results[0] == [2] and results[2] == [6]
    assert isinstance(results[1], RequestError) and results[1].message == "minus one"
    assert [x for _, x in calls] == [[1, 2, -1, 3], [1], [2], [-1], [3]]


def test_while_the_model_is_busy_batches_fill_and_the_loop_lives():
    async def scenario(batcher, model):
        model.open.clear()
        first = asyncio.create_task(batcher.submit(clips(0)))
        await waiting(model, 1)
        others = [asyncio.create_task(batcher.submit(clips(x))) for x in range(1, 7)]
        await asyncio.sleep(0.2)  # longer than the timeout; the loop runs while the model waits
        assert len(model.calls) == 1
        model.open.set()
        await asyncio.gather(first, *others)
        return [x for _, x in model.calls]

    assert run(scenario) == [[0], [1, 2, 3, 4], [5, 6]]


def test_no_key_starves():
    """A steady stream of one key does not keep another waiting."""
    async def scenario(batcher, model):
        model.open.clear()
        tasks = [asyncio.create_task(batcher.submit(clips(*range(4)))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(batcher.submit(clips(9, key="b"))))
        await asyncio.sleep(0)
        await asyncio.sleep(0.06)  # longer than the timeout, for both keys
        tasks.append(asyncio.create_task(batcher.submit(clips(*range(4)))))
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(*tasks)
        return [key for key, _ in model.calls]

    assert run(scenario) == ["a", "a", "a", "b", "a"]


def test_a_full_queue_refuses_and_recovers():
    async def scenario(batcher, model):
        model.open.clear()
        first = asyncio.create_task(batcher.submit(clips(*range(5))))
        await waiting(model, 1)
        with pytest.raises(RequestError) as refused:
            await batcher.submit(clips(1, 2))
        model.open.set()
        await first
        return refused.value, await batcher.submit(clips(*range(6)))

    error, results = run(scenario, queue=6)
    assert (error.status, error.retry_after) == (503, 1)
    assert results == [0, 2, 4, 6, 8, 10]


def test_large_clips_go_alone():
    async def scenario(batcher, model):
        await asyncio.gather(batcher.submit(clips(1, 2, 3, size=400)),
                             batcher.submit(clips(4, size=5000)))
        return [x for _, x in model.calls]

    assert run(scenario) == [[1, 2], [3], [4]]


def test_a_request_that_is_gone_is_not_computed_and_does_no_harm():
    async def scenario(batcher, model):
        model.open.clear()
        first = asyncio.create_task(batcher.submit(clips(1)))
        await waiting(model, 1)
        gone = asyncio.create_task(batcher.submit(clips(2, 3)))
        await asyncio.sleep(0.01)
        gone.cancel()
        first.cancel()
        await asyncio.sleep(0.01)
        model.open.set()
        assert await batcher.submit(clips(*range(4, 8), *range(20, 36))) == (
            [8, 10, 12, 14, *range(40, 72, 2)])
        return [x for _, x in model.calls]

    calls = run(scenario)
    assert calls[0] == [1] and not {2, 3} & {y for x in calls for y in x}


def test_closing_answers_what_was_accepted():
    async def main():
        model = Model()
        batcher = Batcher(model, batch_size=2, timeout=30, queue=9, batch_bytes=99)
        tasks = [asyncio.create_task(batcher.submit(clips(x, key=x))) for x in range(4)]
        await asyncio.sleep(0)
        await batcher.close()
        return await asyncio.gather(*tasks)

    assert asyncio.run(asyncio.wait_for(main(), 20)) == [[0], [2], [4], [6]]


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [
    {}, {"progressive": True}, {"optimize": True}, {"comment": b"\xff\xc0\x00\x11 not this"},
    {"exif": b"Exif\x00\x00MM\x00*\xff\xd8\xff\xc0\x00\x11\x08\x00\x01\x00\x01"},
    {"restart_marker_blocks": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_header_says_what_pillow_says(mode, options):
    content = saved(PIL.Image.new(mode, (321, 203)), **options)
    assert jpeg_size(content) == PIL.Image.open(io.BytesIO(content)).size[::-1] == (203, 321)
    # Fill bytes before markers, which the format allows.
    assert jpeg_size(content.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)) == (203, 321)


def test_a_damaged_header_is_refused():
    content = saved(PIL.Image.new("RGB", (32, 20)))
    place = content.index(b"\xff\xc0")
    for end in (0, 2, 3, 20, place, place + 5, place + 8):
        with pytest.raises(RequestError):
            jpeg_size(content[:end])
    for bad in (content.replace(b"\xff\xc0", b"\xff\xda"), b"\xff\xd8\xff\xe0\x00\x00" + content,
                b"\xff\xd8" + b"\xff" * 1000):
        with pytest.raises(RequestError):
            jpeg_size(bad)


def test_what_would_be_large_or_slow_to_decode_is_refused():
    limits = Limits(pixels=100 * 100)
    limits.check_jpeg(saved(PIL.Image.new("RGB", (100, 100)), progressive=True))
    with pytest.raises(RequestError, match="50 x 201 pixels"):
        limits.check_jpeg(saved(PIL.Image.new("RGB", (201, 50))))
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, [16, 16, 3], np.uint8)
    content = saved(PIL.Image.fromarray(noise), progressive=True)
    start = content.index(b"\xff\xda")
    scan = content[start:content.index(b"\xff\xc4", start)]
    many = content[:start] + scan * limits_module.MOST_SCANS + content[start:]
    with pytest.raises(RequestError, match="scans"):
        limits.check_jpeg(many)
