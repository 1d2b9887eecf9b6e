"""The compiled body of ``kernel.py``, which is its specification.

Memory is reached through plain pointers, so each function checks every offset and length itself,
in 64 bits, before it reads there. Whatever is not plain (a number too large, another container)
goes the way of the pure body and ends in the same error. Long checksums and scans run without the
GIL. The walks over frames are in ``frames.pxd``, the checksum is in ``crc32.h``.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE, PyList_New
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE, PyTuple_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from .frames cimport (
    ALIGNMENT, BATCH_SIZE, BATCH_WORD, FRAME_SIZE, FRAME_WORD, KNOWN_FLAGS, LONGEST_IMAGE,
    Batch, Chain, Frame, Pairs, claimed_batch, crc32_update, seek, walk,
)
from .memory cimport View, let_go, load32, load64, plain, store32, store64, view_of

from operator import index as as_index

from . import layout
from .layout import (
    BATCH_HEADER, COMMAND_HEADER, FRAME_HEADER, RESULT_HEADER, RUN_HEADER, FormatError,
)

cdef extern from "Python.h":
    unsigned long PyLong_AsUnsignedLongMask(object) except? 0xFFFFFFFF
    object PyLong_FromUnsignedLongLong(unsigned long long)
    PyObject* PyList_GET_ITEM(object, Py_ssize_t)
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t)
    void PyList_SET_ITEM(object, Py_ssize_t, object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)

cdef extern from "crc32.h" nogil:
    void crc32_prepare()
    uint32_t crc32_portable(uint32_t, const uint8_t*, size_t)

cdef enum:
    RUN_SIZE = 40
    COMMAND_SIZE = 16
    RESULT_SIZE = 4
    LONG = 1 << 16  # bytes from which on it pays to let other threads run meanwhile

cdef uint64_t MAX_U32 = 0xFFFFFFFF
cdef uint64_t MAX_U64 = 0xFFFFFFFFFFFFFFFF

Buffer = bytes | bytearray | memoryview
COMPILED = True

crc32_prepare()

if (
    BATCH_SIZE, RUN_SIZE, COMMAND_SIZE, RESULT_SIZE, FRAME_SIZE, ALIGNMENT, LONGEST_IMAGE,
    KNOWN_FLAGS,
) != (
    BATCH_HEADER.size, RUN_HEADER.size, COMMAND_HEADER.size, RESULT_HEADER.size, FRAME_HEADER.size,
    layout.FRAME_ALIGNMENT, layout.MAX_BATCH_BYTES, layout.CONFIGURATION_FLAG,
) or (BATCH_WORD.to_bytes(4, "little"), FRAME_WORD.to_bytes(4, "little")) != (
    layout.BATCH_MAGIC, layout.FRAME_MAGIC
):
    raise ImportError("kernel.pyx was compiled for another layout.py: build it again")


# -- checksums ---------------------------------------------------------------------------------

cdef inline uint32_t checksum(uint32_t crc, const uint8_t* data, size_t size):
    if size < LONG:
        return crc32_update(crc, data, size)
    with nogil:
        crc = crc32_update(crc, data, size)
    return crc


def crc32(buffer, value=0):
    """See ``kernel.py``."""
    cdef View view
    cdef uint32_t crc = <uint32_t>PyLong_AsUnsignedLongMask(value)
    view_of(buffer, &view)
    crc = checksum(crc, view.data, view.size)
    let_go(&view)
    return crc


def _crc32_portable(buffer, value=0):
    """The checksum as a processor without carry-less multiplication makes it, for tests."""
    cdef View view
    cdef uint32_t crc = <uint32_t>PyLong_AsUnsignedLongMask(value)
    view_of(buffer, &view)
    crc = crc32_portable(crc, view.data, view.size)
    let_go(&view)
    return crc


# -- runs --------------------------------------------------------------------------------------

cdef inline void put_run_header(
    uint8_t* at, uint8_t kind, uint32_t count, uint64_t session, uint64_t first,
    uint64_t acknowledged, uint32_t length,
) noexcept:
    store32(at, kind)
    store32(at + 4, count)
    store64(at + 8, session)
    store64(at + 16, first)
    store64(at + 24, acknowledged)
    store32(at + 32, length)
    store32(at + 36, 0)


def _encode_run_of_anything(kind, session, first_sequence, acknowledged, commands):
    parts = [b""]
    for resource, operation, arguments in commands:
        parts.append(COMMAND_HEADER.pack(len(arguments), operation, resource))
        parts.append(arguments)
    size = sum(map(len, parts))
    parts[0] = RUN_HEADER.pack(
        kind, 0, 0, len(commands), session, first_sequence, acknowledged, size, 0
    )
    return b"".join(parts)


def encode_run(kind, session, first_sequence, acknowledged, commands):
    """See ``kernel.py``."""
    cdef uint64_t kind_, session_, first, seen, resource, operation
    cdef uint64_t size = 0
    cdef Py_ssize_t position, count, length
    cdef PyObject* command
    cdef PyObject* arguments
    cdef uint8_t* at
    cdef bytes run
    if not (
        PyList_CheckExact(commands)
        and plain(<PyObject*>kind, 255, &kind_)
        and plain(<PyObject*>session, MAX_U64, &session_)
        and plain(<PyObject*>first_sequence, MAX_U64, &first)
        and plain(<PyObject*>acknowledged, MAX_U64, &seen)
    ):
        return _encode_run_of_anything(kind, session, first_sequence, acknowledged, commands)
    # Nothing in these two walks runs Python code, so the list cannot change between them.
    count = PyList_GET_SIZE(commands)
    for position in range(count):
        command = PyList_GET_ITEM(commands, position)
        if not PyTuple_CheckExact(<object>command) or PyTuple_GET_SIZE(<object>command) != 3:
            break
        arguments = PyTuple_GET_ITEM(command, 2)
        if not PyBytes_CheckExact(<object>arguments):
            break
        size += COMMAND_SIZE + <uint64_t>PyBytes_GET_SIZE(<object>arguments)
    else:
        if size <= MAX_U32 and <uint64_t>count <= MAX_U32:
            run = PyBytes_FromStringAndSize(NULL, RUN_SIZE + <Py_ssize_t>size)
            at = <uint8_t*>PyBytes_AS_STRING(run)
            put_run_header(
                at, <uint8_t>kind_, <uint32_t>count, session_, first, seen, <uint32_t>size
            )
            at += RUN_SIZE
            for position in range(count):
                command = PyList_GET_ITEM(commands, position)
                arguments = PyTuple_GET_ITEM(command, 2)
                if not (
                    plain(PyTuple_GET_ITEM(command, 0), MAX_U64, &resource)
                    and plain(PyTuple_GET_ITEM(command, 1), MAX_U32, &operation)
                ):
                    break
                length = PyBytes_GET_SIZE(<object>arguments)
                store32(at, <uint32_t>length)
                store32(at + 4, <uint32_t>operation)
                store64(at + 8, resource)
                memcpy(at + COMMAND_SIZE, PyBytes_AS_STRING(<object>arguments), length)
                at += COMMAND_SIZE + length
            else:
                return run
    return _encode_run_of_anything(kind, session, first_sequence, acknowledged, commands)


def check_run(buffer, Py_ssize_t offset, Py_ssize_t end, max_arguments):
    """See ``kernel.py``."""
    cdef View view
    cdef int64_t at, stop
    cdef int64_t most = max_arguments
    cdef uint32_t count, left
    cdef uint32_t size = 0
    cdef const uint8_t* head
    cdef object result
    cdef const char* problem = NULL
    view_of(buffer, &view)
    try:
        if end > view.size or offset < 0 or end < RUN_SIZE or offset > end - RUN_SIZE:
            raise FormatError("a run ends inside its header")
        head = view.data + offset
        count = load32(head + 4)
        at = offset + RUN_SIZE
        stop = at + load32(head + 32)
        if stop > end or count == 0 or load32(head) >> 8 or load32(head + 36):
            raise FormatError("a run's header is not valid")
        left = count
        while left:
            if at + COMMAND_SIZE > stop:
                raise FormatError("a run is shorter than its commands")
            size = load32(view.data + at)
            if size > most:
                raise FormatError(
                    f"a command's arguments have {size} bytes, {max_arguments} allowed"
                )
            at += COMMAND_SIZE + <int64_t>size
            left -= 1
        if at != stop:
            raise FormatError("a run's commands do not fill it")
        return head[0], load64(head + 8), load64(head + 16), load64(head + 24), count, stop
    finally:
        let_go(&view)


def slice_run(buffer, Py_ssize_t offset, Py_ssize_t skip):
    """See ``kernel.py``."""
    cdef View view
    cdef int64_t at, stop
    cdef uint32_t count
    cdef Py_ssize_t left = skip
    cdef uint64_t first
    cdef const uint8_t* head
    cdef uint8_t* out
    cdef bytes run
    view_of(buffer, &view)
    try:
        if offset < 0 or view.size < RUN_SIZE or offset > view.size - RUN_SIZE:
            raise FormatError("a run ends inside its header")
        head = view.data + offset
        count = load32(head + 4)
        first = load64(head + 16)
        at = offset + RUN_SIZE
        stop = at + load32(head + 32)
        if skip < 0 or skip > count or stop > view.size or first > MAX_U64 - <uint64_t>skip:
            raise FormatError("a run's header is not valid")
        while left:
            if at + COMMAND_SIZE > stop:
                raise FormatError("a run is shorter than its commands")
            at += COMMAND_SIZE + <int64_t>load32(view.data + at)
            left -= 1
        if at > stop:
            raise FormatError("a run is shorter than its commands")
        run = PyBytes_FromStringAndSize(NULL, RUN_SIZE + (stop - at))
        out = <uint8_t*>PyBytes_AS_STRING(run)
        put_run_header(
            out, head[0], count - <uint32_t>skip, load64(head + 8), first + <uint64_t>skip,
            load64(head + 24), <uint32_t>(stop - at),
        )
        memcpy(out + RUN_SIZE, view.data + at, stop - at)
        return run
    finally:
        let_go(&view)


# -- batches -----------------------------------------------------------------------------------

def seal_batch(runs, base_index, term, time_us, flags=0):
    """See ``kernel.py``."""
    cdef uint64_t base, term_, time, flags_
    cdef uint64_t count = 0
    cdef uint64_t length = BATCH_SIZE
    cdef Py_ssize_t position, size
    cdef const uint8_t* data
    cdef uint8_t* image
    cdef uint8_t* at
    cdef bytes sealed
    # Bytes, and a list of our own: nothing can change while the two walks go on.
    cdef list parts = [
        run if PyBytes_CheckExact(run) else bytes(memoryview(run)) for run in runs
    ]
    for position in range(PyList_GET_SIZE(parts)):
        data = <const uint8_t*>PyBytes_AS_STRING(<object>PyList_GET_ITEM(parts, position))
        size = PyBytes_GET_SIZE(<object>PyList_GET_ITEM(parts, position))
        if size >= 8:
            count += load32(data + 4)
        else:  # no run at all, but the specification has an answer
            count += <uint64_t>int.from_bytes(data[4:size] if size > 4 else b"", "little")
        length += <uint64_t>size
    if (
        length > MAX_U32
        or count > MAX_U32
        or <uint64_t>PyList_GET_SIZE(parts) > MAX_U32
        or not plain(<PyObject*>base_index, MAX_U64, &base)
        or not plain(<PyObject*>term, MAX_U64, &term_)
        or not plain(<PyObject*>time_us, MAX_U64, &time)
        or not plain(<PyObject*>flags, MAX_U32, &flags_)
    ):
        BATCH_HEADER.pack(
            layout.BATCH_MAGIC, 0, length, flags, base_index, term, time_us, count, len(parts)
        )  # raises, unless a number was only dressed up
        return seal_batch(
            parts, as_index(base_index), as_index(term), as_index(time_us), as_index(flags)
        )
    sealed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    image = <uint8_t*>PyBytes_AS_STRING(sealed)
    store32(image, BATCH_WORD)
    store32(image + 8, <uint32_t>length)
    store32(image + 12, <uint32_t>flags_)
    store64(image + 16, base)
    store64(image + 24, term_)
    store64(image + 32, time)
    store32(image + 40, <uint32_t>count)
    store32(image + 44, <uint32_t>PyList_GET_SIZE(parts))
    at = image + BATCH_SIZE
    for position in range(PyList_GET_SIZE(parts)):
        size = PyBytes_GET_SIZE(<object>PyList_GET_ITEM(parts, position))
        memcpy(at, PyBytes_AS_STRING(<object>PyList_GET_ITEM(parts, position)), size)
        at += size
    store32(image + 4, checksum(0, image + 8, length - 8))
    return sealed


def scan_batches(buffer, Py_ssize_t offset, Py_ssize_t end):
    """See ``kernel.py``."""
    cdef View view
    cdef Batch batch
    cdef int64_t at = offset
    cdef list found = []
    view_of(buffer, &view)
    try:
        if end > view.size:
            raise FormatError("batches end beyond their buffer")
        while at < end:
            if (
                at < 0
                or not claimed_batch(view.data, at, end, &batch)
                or checksum(0, view.data + at + 8, batch.length - 8) != batch.crc
            ):
                raise FormatError(f"no valid batch at offset {at}")
            found.append((at, batch.length, batch.base, batch.count, batch.term, batch.time_us))
            at += batch.length
        return found
    finally:
        let_go(&view)


def batch_runs(image):
    """See ``kernel.py``."""
    cdef View view
    cdef int64_t at = BATCH_SIZE
    cdef int64_t count
    cdef uint32_t runs_left
    cdef const uint8_t* head
    cdef list runs = []
    view_of(image, &view)
    try:
        if view.size < BATCH_SIZE:
            raise FormatError("an image ends inside a header")
        if load32(view.data + 8) != view.size:
            raise FormatError("an image's length is not what its header says")
        count = load32(view.data + 40)
        runs_left = load32(view.data + 44)
        while runs_left:
            if at > view.size - RUN_SIZE:
                raise FormatError("an image ends inside a header")
            head = view.data + at
            at += RUN_SIZE
            runs.append((
                head[0], load64(head + 8), load64(head + 16), load64(head + 24),
                load32(head + 4), at,
            ))
            count -= load32(head + 4)
            at += load32(head + 32)
            runs_left -= 1
        if at != view.size or count:
            raise FormatError("an image's runs do not fill it")
        return runs
    finally:
        let_go(&view)


# -- commands and results ----------------------------------------------------------------------

def decode_commands(image, Py_ssize_t offset, Py_ssize_t count, Py_ssize_t skip=0):
    """See ``kernel.py``."""
    cdef View view
    cdef int64_t at = offset
    cdef int64_t begin = offset
    cdef Py_ssize_t position
    cdef uint32_t size, operation
    cdef uint64_t resource
    cdef uint32_t known_operation = 0
    cdef uint64_t known_resource = 0
    cdef object resource_ = 0
    cdef object operation_ = 0
    cdef object arguments
    cdef tuple command
    cdef list commands
    view_of(image, &view)
    try:
        # First a walk, so that objects are made only for what is whole.
        for position in range(count):
            if at < 0 or at > view.size - COMMAND_SIZE:
                raise FormatError("a command ends inside its header")
            at += COMMAND_SIZE + <int64_t>load32(view.data + at)
            if at > view.size:
                raise FormatError("a command's arguments are cut off")
            if position < skip:
                begin = at
        if skip > 0:
            count -= skip
        commands = PyList_New(max(0, count))
        at = begin
        for position in range(count):
            size = load32(view.data + at)
            operation = load32(view.data + at + 4)
            resource = load64(view.data + at + 8)
            at += COMMAND_SIZE
            # A run mostly does the same thing to the same resource.
            if resource != known_resource:
                resource_ = PyLong_FromUnsignedLongLong(resource)
                known_resource = resource
            if operation != known_operation:
                operation_ = PyLong_FromUnsignedLongLong(operation)
                known_operation = operation
            arguments = PyBytes_FromStringAndSize(<const char*>view.data + at, size)
            command = PyTuple_New(3)
            Py_INCREF(resource_)
            PyTuple_SET_ITEM(command, 0, resource_)
            Py_INCREF(operation_)
            PyTuple_SET_ITEM(command, 1, operation_)
            Py_INCREF(arguments)
            PyTuple_SET_ITEM(command, 2, arguments)
            Py_INCREF(command)
            PyList_SET_ITEM(commands, position, command)
            at += size
        return commands
    finally:
        let_go(&view)


def encode_results(results):
    """See ``kernel.py``."""
    cdef Py_ssize_t position, length
    cdef uint64_t size = 0
    cdef PyObject* result
    cdef uint8_t* at
    cdef bytes encoded
    if PyList_CheckExact(results):
        for position in range(PyList_GET_SIZE(results)):
            result = PyList_GET_ITEM(results, position)
            if not PyBytes_CheckExact(<object>result):
                break
            if <uint64_t>PyBytes_GET_SIZE(<object>result) > MAX_U32:
                break
            size += RESULT_SIZE + <uint64_t>PyBytes_GET_SIZE(<object>result)
        else:
            encoded = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            at = <uint8_t*>PyBytes_AS_STRING(encoded)
            for position in range(PyList_GET_SIZE(results)):
                result = PyList_GET_ITEM(results, position)
                length = PyBytes_GET_SIZE(<object>result)
                store32(at, <uint32_t>length)
                memcpy(at + RESULT_SIZE, PyBytes_AS_STRING(<object>result), length)
                at += RESULT_SIZE + length
            return encoded
    pack = RESULT_HEADER.pack
    return b"".join([part for result_ in results for part in (pack(len(result_)), result_)])


def decode_results(buffer, Py_ssize_t offset, Py_ssize_t count):
    """See ``kernel.py``."""
    cdef View view
    cdef int64_t at = offset
    cdef Py_ssize_t position
    cdef uint32_t size
    cdef object result
    cdef list results
    view_of(buffer, &view)
    try:
        for position in range(count):
            if at < 0 or at > view.size - RESULT_SIZE:
                raise FormatError("a result ends inside its header")
            size = load32(view.data + at)
            at += RESULT_SIZE + <int64_t>size
            if at > view.size or size == 0:
                raise FormatError("a result is empty or cut off")
        if at != view.size:
            raise FormatError("results do not fill their frame")
        results = PyList_New(max(0, count))
        at = offset
        for position in range(count):
            size = load32(view.data + at)
            at += RESULT_SIZE
            result = PyBytes_FromStringAndSize(<const char*>view.data + at, size)
            Py_INCREF(result)
            PyList_SET_ITEM(results, position, result)
            at += size
        return results
    finally:
        let_go(&view)


# -- local frames ------------------------------------------------------------------------------

def frame_image(image, generation, offset, durable_index, previous_crc):
    """See ``kernel.py``."""
    cdef uint64_t generation_, offset_, durable, previous
    cdef View view
    cdef int64_t size, padded
    cdef uint32_t crc
    cdef uint8_t* out
    cdef bytes framed
    view_of(image, &view)
    try:
        size = view.size
        if (
            <uint64_t>size > MAX_U32
            or not plain(<PyObject*>generation, MAX_U64, &generation_)
            or not plain(<PyObject*>offset, MAX_U64, &offset_)
            or not plain(<PyObject*>durable_index, MAX_U64, &durable)
            or not plain(<PyObject*>previous_crc, MAX_U32, &previous)
        ):
            FRAME_HEADER.pack(
                layout.FRAME_MAGIC, 0, generation, offset, durable_index, previous_crc, size
            )  # raises, unless a number was only dressed up
            return frame_image(
                image, as_index(generation), as_index(offset), as_index(durable_index),
                as_index(previous_crc),
            )
        padded = (FRAME_SIZE + size + ALIGNMENT - 1) & -ALIGNMENT
        framed = PyBytes_FromStringAndSize(NULL, padded)
        out = <uint8_t*>PyBytes_AS_STRING(framed)
        store32(out, FRAME_WORD)
        store64(out + 8, generation_)
        store64(out + 16, offset_)
        store64(out + 24, durable)
        store32(out + 32, <uint32_t>previous)
        store32(out + 36, <uint32_t>size)
        crc = crc32_update(0, out + 8, FRAME_SIZE - 8)
        if size > 4:
            crc = crc32_update(crc, view.data + 4, min(size, 8) - 4)
        store32(out + 4, crc)
        memcpy(out + FRAME_SIZE, view.data, size)
        memset(out + FRAME_SIZE + size, 0, padded - FRAME_SIZE - size)
        return framed
    finally:
        let_go(&view)


cdef list pairs_as_list(Pairs* pairs):
    cdef size_t i
    return [(pairs.data[2 * i], pairs.data[2 * i + 1]) for i in range(pairs.count)]


def scan_frames(
    buffer, Py_ssize_t offset, Py_ssize_t end, generation, previous_crc, next_index, stride
):
    """See ``kernel.py``."""
    cdef View view
    cdef Chain chain
    cdef int64_t stride_ = stride
    cdef bint whole
    memset(&chain, 0, sizeof(chain))
    chain.offset = offset
    chain.generation = generation
    chain.previous_crc = previous_crc
    chain.next_index = next_index
    view_of(buffer, &view)
    try:
        if offset < 0 or end > view.size:
            raise FormatError("frames end beyond their buffer")
        with nogil:
            whole = walk(view.data, end, stride_, &chain)
        if not whole:
            raise MemoryError
        return (
            chain.offset, chain.generation, chain.previous_crc, chain.next_index, chain.time_us,
            pairs_as_list(&chain.index), pairs_as_list(&chain.terms),
            pairs_as_list(&chain.flagged),
        )
    finally:
        free(chain.index.data)
        free(chain.terms.data)
        free(chain.flagged.data)
        let_go(&view)


def find_frame(buffer, Py_ssize_t offset, Py_ssize_t end, generation):
    """See ``kernel.py``."""
    cdef View view
    cdef Frame frame
    cdef uint64_t least = generation
    cdef int64_t at = offset
    cdef bint found = False
    view_of(buffer, &view)
    try:
        if offset < 0 or end > view.size:
            raise FormatError("frames end beyond their buffer")
        with nogil:
            found = seek(view.data, &at, end, least, &frame)
        return (at, frame.batch.base, frame.durable) if found else None
    finally:
        let_go(&view)
