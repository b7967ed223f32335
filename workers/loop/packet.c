/* A packet as a Python object: the base of the class Packet in batch.py, with the attributes that a
 * plugin uses for each packet. An attribute in Python that refuses assignments takes three times as
 * long. A memoryview is made when a plugin reads `data`: a loop that does not saves most of its
 * time. */
#define Py_LIMITED_API 0x030b0000 /* Python 3.11, as in pyproject.toml */
#include <Python.h>

#include "loop.h"
#include "../plugin.h"

struct rl_frame_object {
    PyObject base;
    struct rl_worker *worker; /* of the Batch that this packet belongs to, and that lives longer */
    Py_ssize_t index;         /* the place of the packet in its batch */
    PyObject *view;           /* memoryview over packet memory, from buffer 0 on */
    PyObject *data;           /* memoryview over the frame, or NULL until it is used */
    uint64_t look;            /* `worker->look` when `data` was made */
};

static struct rl_frame_object *of(PyObject *self)
{
    return (struct rl_frame_object *)self;
}

static const struct rl_span *span_of(PyObject *self)
{
    return of(self)->worker->spans + of(self)->index;
}

static PyObject *get_data(PyObject *self, void *closure)
{
    struct rl_frame_object *frame = of(self);
    if (!frame->data || frame->look != frame->worker->look) {
        const struct rl_span *span = span_of(self);
        PyObject *data = PySequence_GetSlice(frame->view, span->start, span->end);
        if (!data)
            return NULL;
        PyObject *old = frame->data;
        frame->data = data;
        frame->look = frame->worker->look;
        Py_XDECREF(old);
    }
    return Py_NewRef(frame->data);
}

static PyObject *get_length(PyObject *self, void *closure)
{
    return PyLong_FromLongLong(span_of(self)->end - span_of(self)->start);
}

static PyObject *get_port(PyObject *self, void *closure)
{
    return PyLong_FromLongLong(span_of(self)->port);
}

static PyObject *get_verdict(PyObject *self, void *closure)
{
    return PyLong_FromLongLong(of(self)->worker->verdicts[of(self)->index]);
}

/* Give an assigned value to the method with the name `method`, which writes it or says why not. */
static int set_by_method(PyObject *self, PyObject *value, void *method)
{
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "an attribute of a packet cannot be deleted");
        return -1;
    }
    PyObject *done = PyObject_CallMethod(self, method, "(O)", value);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int set_verdict(PyObject *self, PyObject *value, void *closure)
{
    if (value && PyIndex_Check(value)) {
        PyObject *number = PyNumber_Index(value);
        if (!number)
            return -1;
        int overflow;
        int64_t verdict = PyLong_AsLongLongAndOverflow(number, &overflow);
        Py_DECREF(number);
        if (!overflow) {
            of(self)->worker->verdicts[of(self)->index] = verdict;
            return 0;
        }
    }
    return set_by_method(self, value, "_refuse_verdict");
}

/* Frame(address of struct rl_worker, memoryview over packet memory, index) */
static PyObject *create(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    unsigned long long worker;
    PyObject *view;
    Py_ssize_t index;
    if (!PyArg_ParseTuple(arguments, "KOn", &worker, &view, &index))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (!self)
        return NULL;
    of(self)->worker = (struct rl_worker *)(uintptr_t)worker;
    of(self)->view = Py_NewRef(view);
    of(self)->index = index;
    return self;
}

static void destroy(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_XDECREF(of(self)->data);
    Py_XDECREF(of(self)->view);
    release(self);
    Py_DECREF(type);
}

static PyGetSetDef attributes[] = {
    {"data", get_data, set_by_method,
     "A writable memoryview over the bytes of the frame. Assigning bytes to it writes them into\n"
     "the frame, which gets their length.",
     "_write"},
    {"length", get_length, set_by_method, "Bytes of the frame.", "_refuse_length"},
    {"port", get_port, set_by_method, "The number of the input port; it cannot be assigned.",
     "_refuse_port"},
    {"verdict", get_verdict, set_verdict,
     "The number of the port to send to, DROP, or a drop reason; DROP at first. Writable.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create},
    {Py_tp_dealloc, destroy},
    {Py_tp_getset, attributes},
    {Py_tp_doc, "What a plugin uses for each packet; see Packet in batch.py."},
    {0, NULL},
};

static PyType_Spec spec = {
    "ringline.workers._workers.Frame",
    sizeof(struct rl_frame_object),
    0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    slots,
};

int rl_define_frame(void)
{
    PyGILState_STATE state = PyGILState_Ensure(); /* cffi releases the lock for a call */
    PyObject *module = PyImport_ImportModule("ringline.workers._workers");
    PyObject *type = module ? PyType_FromSpec(&spec) : NULL;
    int done = type && PyObject_SetAttrString(module, "Frame", type) == 0;
    if (!done)
        PyErr_Print();
    Py_XDECREF(type);
    Py_XDECREF(module);
    PyGILState_Release(state);
    return done;
}

uint8_t *rl_batch_create(struct rl_batch *batch, uint32_t length, uint32_t port)
{
    return rl_create(batch, length, port);
}
