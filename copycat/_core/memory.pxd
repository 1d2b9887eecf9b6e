"""Memory and numbers as a compiled body sees them; inlined into whoever cimports this."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "Python.h":
    bint PyLong_Check(object)
    unsigned long long PyLong_AsUnsignedLongLong(object) noexcept

cdef extern from "little_endian.h" nogil:
    uint32_t load32(const uint8_t*)
    uint64_t load64(const uint8_t*)
    void store32(uint8_t*, uint32_t)
    void store64(uint8_t*, uint64_t)


cdef struct View:
    Py_buffer buffer
    bint held
    const uint8_t* data
    int64_t size


cdef inline int view_of(object source, View* view) except -1:
    if PyBytes_CheckExact(source):
        view.held = False
        view.data = <const uint8_t*>PyBytes_AS_STRING(source)
        view.size = PyBytes_GET_SIZE(source)
    else:
        PyObject_GetBuffer(source, &view.buffer, PyBUF_SIMPLE)
        view.held = True
        view.data = <const uint8_t*>view.buffer.buf
        view.size = view.buffer.len
    return 0


cdef inline void let_go(View* view) noexcept:
    if view.held:
        PyBuffer_Release(&view.buffer)


cdef inline bint plain(PyObject* value, uint64_t limit, uint64_t* number) noexcept:
    """Whether ``value`` is an int from 0 to ``limit``; runs no Python code to find out."""
    if not PyLong_Check(<object>value):
        return False
    number[0] = PyLong_AsUnsignedLongLong(<object>value)
    if number[0] == <uint64_t>-1 and PyErr_Occurred() is not NULL:
        PyErr_Clear()
        return False
    return number[0] <= limit
