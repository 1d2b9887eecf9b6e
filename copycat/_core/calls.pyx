# cython: language_level=3
"""The compiled body of ``calls.py``, which is its specification."""

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_CheckExact, PyDict_SetItem, PyDict_Size
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE, PyList_New
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from .layout import FormatError, Status

cdef extern from "Python.h":
    int PyLong_CheckExact(object)
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1
    unsigned long long PyLong_AsUnsignedLongLong(object) except? 0xFFFFFFFFFFFFFFFF
    object PyLong_FromLongLong(long long)
    object PyLong_FromUnsignedLongLong(unsigned long long)
    const char* PyUnicode_AsUTF8AndSize(object, Py_ssize_t*) except NULL
    void PyList_SET_ITEM(object, Py_ssize_t, object)
    void PyTuple_SET_ITEM(object, Py_ssize_t, object)

cdef extern from "big_endian.h" nogil:
    uint64_t copycat_load_be(const uint8_t*, int)
    void copycat_store_be(uint8_t*, uint64_t, int)

OK = bytes((Status.OK,))
OK_NONE = OK + b"\xc0"
Entry = tuple

cdef enum:
    DEPTH = 16  # deeper values are the fallback's: it knows the exact limit
    COMMAND_HEADER = 16
    RESULT_HEADER = 4


cdef class _NotPlain(Exception):
    pass


# -- reading -----------------------------------------------------------------------------------

cdef struct Reader:
    const uint8_t* at
    const uint8_t* end


cdef object _text(Reader* r, size_t size):
    if <size_t>(r.end - r.at) < size:
        raise _NotPlain
    cdef object value = PyUnicode_DecodeUTF8(<char*>r.at, <Py_ssize_t>size, NULL)
    r.at += size
    return value


cdef object _binary(Reader* r, size_t size):
    if <size_t>(r.end - r.at) < size:
        raise _NotPlain
    cdef object value = PyBytes_FromStringAndSize(<char*>r.at, <Py_ssize_t>size)
    r.at += size
    return value


cdef object _array(Reader* r, size_t size, int depth):
    # Every item takes a byte at least: a claimed count can never make us allocate more than that.
    if <size_t>(r.end - r.at) < size or depth >= DEPTH:
        raise _NotPlain
    cdef list values = PyList_New(0)
    cdef size_t i
    for i in range(size):
        values.append(_read(r, depth + 1))
    return values


cdef object _map(Reader* r, size_t size, int depth):
    if <size_t>(r.end - r.at) < 2 * size or depth >= DEPTH:
        raise _NotPlain
    cdef dict values = {}
    cdef size_t i
    for i in range(size):
        key = _read(r, depth + 1)
        PyDict_SetItem(values, key, _read(r, depth + 1))
    return values


cdef inline uint64_t _number(Reader* r, int size) except? 0xFFFFFFFFFFFFFFFF:
    """A big-endian number of 1, 2, 4 or 8 bytes."""
    cdef uint64_t value
    if r.end - r.at < size:
        raise _NotPlain
    value = copycat_load_be(r.at, size)
    r.at += size
    return value


cdef object _read(Reader* r, int depth):
    cdef uint8_t head
    cdef uint64_t raw
    cdef uint32_t raw4
    cdef float single
    cdef double double_
    if r.at >= r.end:
        raise _NotPlain
    head = r.at[0]
    r.at += 1
    if head < 0x80:
        return PyLong_FromLongLong(head)
    if head >= 0xE0:
        return PyLong_FromLongLong(<int8_t>head)
    if head >= 0xA0 and head < 0xC0:
        return _text(r, head & 0x1F)
    if head < 0x90:
        return _map(r, head & 0x0F, depth)
    if head < 0xA0:
        return _array(r, head & 0x0F, depth)
    if head == 0xC0:
        return None
    if head == 0xC2:
        return False
    if head == 0xC3:
        return True
    if head == 0xC4:
        return _binary(r, _number(r, 1))
    if head == 0xC5:
        return _binary(r, _number(r, 2))
    if head == 0xC6:
        return _binary(r, _number(r, 4))
    if head == 0xCA:
        raw4 = <uint32_t>_number(r, 4)
        memcpy(&single, &raw4, 4)
        return <double>single
    if head == 0xCB:
        raw = _number(r, 8)
        memcpy(&double_, &raw, 8)
        return double_
    if head == 0xCC:
        return PyLong_FromUnsignedLongLong(_number(r, 1))
    if head == 0xCD:
        return PyLong_FromUnsignedLongLong(_number(r, 2))
    if head == 0xCE:
        return PyLong_FromUnsignedLongLong(_number(r, 4))
    if head == 0xCF:
        return PyLong_FromUnsignedLongLong(_number(r, 8))
    if head == 0xD0:
        return PyLong_FromLongLong(<int8_t>_number(r, 1))
    if head == 0xD1:
        return PyLong_FromLongLong(<int16_t>_number(r, 2))
    if head == 0xD2:
        return PyLong_FromLongLong(<int32_t>_number(r, 4))
    if head == 0xD3:
        return PyLong_FromLongLong(<int64_t>_number(r, 8))
    if head == 0xD9:
        return _text(r, _number(r, 1))
    if head == 0xDA:
        return _text(r, _number(r, 2))
    if head == 0xDB:
        return _text(r, _number(r, 4))
    if head == 0xDC:
        return _array(r, _number(r, 2), depth)
    if head == 0xDD:
        return _array(r, _number(r, 4), depth)
    if head == 0xDE:
        return _map(r, _number(r, 2), depth)
    if head == 0xDF:
        return _map(r, _number(r, 4), depth)
    raise _NotPlain  # an extension, or no msgpack


cdef object _read_all(const uint8_t* at, Py_ssize_t size):
    cdef Reader r
    r.at = at
    r.end = at + size
    cdef object value = _read(&r, 0)
    if r.at != r.end:
        raise _NotPlain
    return value


cdef class _Unpacker:
    cdef readonly object fallback

    def __init__(self, fallback):
        self.fallback = fallback

    def __call__(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return _read_all(<const uint8_t*>view.buf, view.len)
        except Exception:
            pass
        finally:
            PyBuffer_Release(&view)
        return self.fallback(data)

    cdef object arguments(self, const uint8_t* at, Py_ssize_t size):
        """The arguments of a command as a tuple."""
        cdef Reader r
        cdef size_t count
        cdef size_t i
        cdef tuple values
        r.at = at + 1
        r.end = at + size
        if size > 0 and at[0] >= 0x90 and at[0] < 0xA0:
            count = at[0] & 0x0F
            if count <= <size_t>(size - 1):
                try:
                    values = PyTuple_New(count)
                    for i in range(count):
                        value = _read(&r, 1)
                        Py_INCREF(value)
                        PyTuple_SET_ITEM(values, i, value)
                    if r.at == r.end:
                        return values
                except Exception:
                    pass
        return tuple(self.fallback(PyBytes_FromStringAndSize(<char*>at, size)))


# -- writing -----------------------------------------------------------------------------------

cdef struct Writer:
    uint8_t* data
    size_t size
    size_t room


cdef inline int _ensure(Writer* w, size_t more) except -1:
    cdef size_t room
    cdef uint8_t* data
    if w.size + more > w.room:
        room = 2 * (w.size + more)
        data = <uint8_t*>realloc(w.data, room)
        if data is NULL:
            raise MemoryError
        w.data = data
        w.room = room
    return 0


cdef inline int _put(Writer* w, uint8_t head) except -1:
    _ensure(w, 1)
    w.data[w.size] = head
    w.size += 1
    return 0


cdef inline int _put1(Writer* w, uint8_t head, uint8_t value) except -1:
    _ensure(w, 2)
    w.data[w.size] = head
    w.data[w.size + 1] = value
    w.size += 2
    return 0


cdef inline int _put2(Writer* w, uint8_t head, uint16_t value) except -1:
    _ensure(w, 3)
    w.data[w.size] = head
    copycat_store_be(w.data + w.size + 1, value, 2)
    w.size += 3
    return 0


cdef inline int _put4(Writer* w, uint8_t head, uint32_t value) except -1:
    _ensure(w, 5)
    w.data[w.size] = head
    copycat_store_be(w.data + w.size + 1, value, 4)
    w.size += 5
    return 0


cdef inline int _put8(Writer* w, uint8_t head, uint64_t value) except -1:
    _ensure(w, 9)
    w.data[w.size] = head
    copycat_store_be(w.data + w.size + 1, value, 8)
    w.size += 9
    return 0


cdef inline int _bytes(Writer* w, const char* data, size_t size) except -1:
    _ensure(w, size)
    memcpy(w.data + w.size, data, size)
    w.size += size
    return 0


cdef int _write_int(Writer* w, object value) except -1:
    cdef int overflow = 0
    cdef long long n = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow < 0:
        raise _NotPlain
    if overflow > 0:
        return _put8(w, 0xCF, PyLong_AsUnsignedLongLong(value))  # OverflowError: not plain
    if n >= 0:
        if n < 0x80:
            return _put(w, <uint8_t>n)
        if n < 0x100:
            return _put1(w, 0xCC, <uint8_t>n)
        if n < 0x10000:
            return _put2(w, 0xCD, <uint16_t>n)
        if n < 0x100000000:
            return _put4(w, 0xCE, <uint32_t>n)
        return _put8(w, 0xCF, <uint64_t>n)
    if n >= -32:
        return _put(w, <uint8_t>(<int8_t>n))
    if n >= -0x80:
        return _put1(w, 0xD0, <uint8_t>(<int8_t>n))
    if n >= -0x8000:
        return _put2(w, 0xD1, <uint16_t>(<int16_t>n))
    if n >= -0x80000000LL:
        return _put4(w, 0xD2, <uint32_t>(<int32_t>n))
    return _put8(w, 0xD3, <uint64_t>n)


cdef int _write_text(Writer* w, object value) except -1:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(value, &size)
    if size < 32:
        _put(w, 0xA0 | <uint8_t>size)
    elif size < 0x100:
        _put1(w, 0xD9, <uint8_t>size)
    elif size < 0x10000:
        _put2(w, 0xDA, <uint16_t>size)
    elif size < 0x100000000:
        _put4(w, 0xDB, <uint32_t>size)
    else:
        raise _NotPlain
    return _bytes(w, data, size)


cdef int _write_binary(Writer* w, object value) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    if size < 0x100:
        _put1(w, 0xC4, <uint8_t>size)
    elif size < 0x10000:
        _put2(w, 0xC5, <uint16_t>size)
    elif size < 0x100000000:
        _put4(w, 0xC6, <uint32_t>size)
    else:
        raise _NotPlain
    return _bytes(w, PyBytes_AS_STRING(value), size)


cdef int _write(Writer* w, object value, int depth) except -1:
    cdef Py_ssize_t size
    cdef Py_ssize_t i
    cdef double double_
    cdef uint64_t raw
    if value is None:
        return _put(w, 0xC0)
    if PyUnicode_CheckExact(value):
        return _write_text(w, value)
    if PyBytes_CheckExact(value):
        return _write_binary(w, value)
    if value is True:
        return _put(w, 0xC3)
    if value is False:
        return _put(w, 0xC2)
    if PyLong_CheckExact(value):
        return _write_int(w, value)
    if PyFloat_CheckExact(value):
        double_ = PyFloat_AS_DOUBLE(value)
        memcpy(&raw, &double_, 8)
        return _put8(w, 0xCB, raw)
    if depth >= DEPTH:
        raise _NotPlain
    if PyList_CheckExact(value):
        size = PyList_GET_SIZE(value)
        if size < 16:
            _put(w, 0x90 | <uint8_t>size)
        elif size < 0x10000:
            _put2(w, 0xDC, <uint16_t>size)
        elif size < 0x100000000:
            _put4(w, 0xDD, <uint32_t>size)
        else:
            raise _NotPlain
        for i in range(size):
            _write(w, <object>PyList_GET_ITEM(value, i), depth + 1)
        return 0
    if PyDict_CheckExact(value):
        size = PyDict_Size(value)
        if size < 16:
            _put(w, 0x80 | <uint8_t>size)
        elif size < 0x10000:
            _put2(w, 0xDE, <uint16_t>size)
        elif size < 0x100000000:
            _put4(w, 0xDF, <uint32_t>size)
        else:
            raise _NotPlain
        for key, item in (<dict>value).items():
            _write(w, key, depth + 1)
            _write(w, item, depth + 1)
        return 0
    raise _NotPlain


cdef class _Packer:
    """Not to be shared between threads: it writes into one buffer of its own."""

    cdef readonly object fallback
    cdef Writer writer
    cdef bint busy

    def __cinit__(self):
        self.writer.room = 1024
        self.writer.data = <uint8_t*>malloc(self.writer.room)
        if self.writer.data is NULL:
            raise MemoryError

    def __init__(self, fallback):
        self.fallback = fallback

    def __dealloc__(self):
        free(self.writer.data)

    def __call__(self, value):
        return self.pack(value)

    cdef bytes pack(self, object value):
        self.writer.size = 0
        try:
            _write(&self.writer, value, 0)
            packed = PyBytes_FromStringAndSize(<char*>self.writer.data, self.writer.size)
            if self.writer.room > 1 << 20:
                self._shrink()
            return packed
        except MemoryError:
            raise
        except Exception:
            pass
        return self.fallback(value)

    cdef _shrink(self):
        """One huge value shall not keep its room for ever."""
        free(self.writer.data)
        self.writer.room = 1024
        self.writer.data = <uint8_t*>malloc(self.writer.room)
        if self.writer.data is NULL:
            raise MemoryError


def packer(fallback):
    """See ``calls.py``."""
    return _Packer(fallback)


def unpacker(fallback):
    """See ``calls.py``."""
    return _Unpacker(fallback)


# -- a client's calls --------------------------------------------------------------------------

cdef class Intake:
    """See ``calls.py``."""

    cdef object loop, running, pack, deadlines, flush_early, flush, time, create_future, call_soon
    cdef object timeout
    cdef Py_ssize_t most, most_bytes, flush_at
    cdef public bint closed, flush_due

    def __init__(
        self, loop, running, pack, timeout, deadlines, most, most_bytes, flush_at, flush_early,
        flush,
    ):
        self.loop = loop
        self.running = running
        self.pack = pack
        self.timeout = timeout
        self.deadlines = deadlines
        self.most = most
        self.most_bytes = most_bytes
        self.flush_at = flush_at
        self.flush_early = flush_early
        self.flush = flush
        self.time = loop.time
        self.create_future = loop.create_future
        self.call_soon = loop.call_soon

    def enter(self, queue, resource, operation, arguments, timeout):
        """See ``calls.py``."""
        cdef double deadline
        cdef bytes packed
        cdef object future
        if (
            operation is None
            or self.closed
            or self.running() is not self.loop
            or len(queue) >= self.most
        ):
            return None
        if type(self.pack) is _Packer:
            packed = (<_Packer>self.pack).pack(arguments)
        else:
            packed = self.pack(arguments)
        if PyBytes_GET_SIZE(packed) > self.most_bytes:
            return None
        if timeout is None:
            timeout = self.timeout
        deadline = <double>self.time() + <double>timeout
        if deadline < <double>self.deadlines.next:
            self.deadlines.by(deadline)
        future = self.create_future()
        queue.append((future, deadline, timeout, (resource, operation, packed)))
        if not self.flush_due:
            self.flush_due = True
            self.call_soon(self.flush)
        if len(queue) == self.flush_at:
            self.flush_early()
        return future


cdef int _check_results(
    const uint8_t* data, Py_ssize_t end, Py_ssize_t at, Py_ssize_t count
) except -1:
    """Raise `FormatError` unless ``count`` results fill the rest."""
    cdef uint32_t size
    for _ in range(count):
        if at < 0 or end - at < RESULT_HEADER:
            raise FormatError("a result ends inside its header")
        memcpy(&size, data + at, 4)
        at += RESULT_HEADER
        if size == 0 or size > <size_t>(end - at):
            raise FormatError("a result is empty or cut off")
        at += size
    if at != end:
        raise FormatError("results do not fill their frame")
    return 0


def resolve(buffer, Py_ssize_t offset, Py_ssize_t count, Py_ssize_t skip, calls, unpack, odd):
    """See ``calls.py``."""
    cdef Py_buffer view
    cdef const uint8_t* data
    cdef Py_ssize_t position
    cdef uint32_t size
    cdef tuple call
    cdef object future, value
    cdef bytes result
    cdef bint plain
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        data = <const uint8_t*>view.buf
        _check_results(data, view.len, offset, count)
        if count - skip > len(calls):
            raise FormatError("there are more results than calls")
        pop = calls.popleft
        for position in range(count):
            memcpy(&size, data + offset, 4)
            offset += RESULT_HEADER
            if position >= skip:
                call = pop()
                future = call[0]
                if not future.done():
                    plain = data[offset] == 0 and type(unpack) is _Unpacker
                    if plain:
                        try:
                            value = _read_all(data + offset + 1, size - 1)
                        except Exception:
                            plain = False
                    if plain:
                        future.set_result(value)
                    else:
                        result = PyBytes_FromStringAndSize(<char*>data + offset, size)
                        _settle(call, result, unpack, odd)
            offset += size
    finally:
        PyBuffer_Release(&view)


cdef _settle(tuple call, bytes result, unpack, odd):
    """What is not a plain value: of a registered type perhaps, or an error."""
    if result[0] != 0:
        odd(call, result)
        return
    try:
        value = unpack(result[1:])
    except Exception:
        odd(call, result)
    else:
        call[0].set_result(value)


# -- running -----------------------------------------------------------------------------------

def run_commands(
    bytes image not None,
    Py_ssize_t offset,
    Py_ssize_t count,
    Py_ssize_t skip,
    object index,
    object time_us,
    object session,
    dict table not None,
    object slow,
    dict events not None,
    object flush,
    object room,
    object most,
    bytes refused not None,
    bytes too_long not None,
):
    """See ``calls.py``."""
    cdef Writer w
    cdef Py_ssize_t room_left = max(0, min(room, <Py_ssize_t>1 << 62))
    cdef Py_ssize_t longest = most
    w.size = 0
    w.room = 64 + 32 * <size_t>max(0, count - skip)
    w.data = <uint8_t*>malloc(w.room)
    if w.data is NULL:
        raise MemoryError
    try:
        _run(
            &w, image, offset, count, skip, index, time_us, session, table, slow, events, flush,
            room_left, longest, refused, too_long,
        )
        return PyBytes_FromStringAndSize(<char*>w.data, w.size)
    finally:
        free(w.data)


cdef int _result(Writer* w, object value, object pack) except -1:
    """Write what a command returned, as a result; ``w`` is as before if that cannot be done."""
    cdef size_t start = w.size
    cdef uint32_t size
    cdef object packed
    _ensure(w, RESULT_HEADER + 1)
    w.size += RESULT_HEADER
    w.data[w.size] = 0  # Status.OK
    w.size += 1
    if value is None:
        _put(w, 0xC0)
    else:
        try:
            if type(pack) is not _Packer:
                raise _NotPlain
            _write(w, value, 0)
        except MemoryError:
            raise
        except Exception:
            w.size = start
            packed = (<_Packer>pack).fallback(value) if type(pack) is _Packer else pack(value)
            return _encoded(w, OK + packed)
    size = <uint32_t>(w.size - start - RESULT_HEADER)
    memcpy(w.data + start, &size, 4)
    return 0


cdef int _encoded(Writer* w, bytes result) except -1:
    """Write a result that is bytes already."""
    cdef uint32_t size = <uint32_t>PyBytes_GET_SIZE(result)
    _ensure(w, RESULT_HEADER + size)
    memcpy(w.data + w.size, &size, 4)
    w.size += RESULT_HEADER
    return _bytes(w, PyBytes_AS_STRING(result), size)


cdef int _run(
    Writer* w,
    bytes image,
    Py_ssize_t offset,
    Py_ssize_t count,
    Py_ssize_t skip,
    object index,
    object time_us,
    object session,
    dict table,
    object slow,
    dict events,
    object flush,
    Py_ssize_t room,
    Py_ssize_t most,
    bytes refused,
    bytes too_long,
) except -1:
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(image)
    cdef Py_ssize_t end = PyBytes_GET_SIZE(image)
    cdef Py_ssize_t position
    cdef uint32_t size
    cdef uint32_t operation
    cdef uint64_t resource
    cdef uint64_t known_resource = 0
    cdef uint32_t known_operation = 0
    cdef tuple entry = None
    cdef uint64_t at = index
    cdef size_t before
    cdef object function = None, commit = None, unpack = None, pack = None, value
    for position in range(count):
        if offset < 0 or end - offset < COMMAND_HEADER:
            raise FormatError("a command ends inside its header")
        memcpy(&size, data + offset, 4)
        memcpy(&operation, data + offset + 4, 4)
        memcpy(&resource, data + offset + 8, 8)
        offset += COMMAND_HEADER
        if size > <size_t>(end - offset):
            raise FormatError("a command's arguments are cut off")
        if position >= skip and <Py_ssize_t>w.size >= room:
            _encoded(w, refused)
            at += 1
        elif position >= skip:
            before = w.size
            index = PyLong_FromUnsignedLongLong(at)
            if entry is None or resource != known_resource or operation != known_operation:
                entry = table.get((resource, operation))
                if entry is not None:
                    known_resource, known_operation = resource, operation
                    function, commit, unpack, pack = entry[0], entry[1], entry[2], entry[3]
                    commit.time_us = time_us
                    commit.session = session
            if entry is None:
                arguments = PyBytes_FromStringAndSize(<char*>data + offset, size)
                _encoded(w, slow(resource, operation, arguments, index, session))
            else:
                commit.index = index
                try:
                    if type(unpack) is _Unpacker:
                        value = function(*(<_Unpacker>unpack).arguments(data + offset, size))
                    else:
                        value = function(
                            *unpack(PyBytes_FromStringAndSize(<char*>data + offset, size))
                        )
                    _result(w, value, pack)
                except Exception as problem:
                    w.size = before
                    _encoded(w, entry[4](problem))
                    entry = None  # that may have fenced the resource
            if <Py_ssize_t>(w.size - before) - RESULT_HEADER > most:
                w.size = before
                _encoded(w, too_long)
            if events:
                flush(index)
            at += 1
        offset += size
    return 0
