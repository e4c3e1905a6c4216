#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Fletcher's checksum of sixteen bits. */
static PyObject *checksum(PyObject *self, PyObject *arguments)
{
    const char *data;
    Py_ssize_t length;
    unsigned first = 0, second = 0;

    if (!PyArg_ParseTuple(arguments, "y#", &data, &length))
        return NULL;
    for (Py_ssize_t place = 0; place < length; place++) {
        first = (first + (unsigned char)data[place]) % 255;
        second = (second + first) % 255;
    }
    return PyLong_FromLong((long)(second << 8 | first));
}

static PyMethodDef methods[] = {{"checksum", checksum, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_crc", NULL, -1, methods};

PyMODINIT_FUNC PyInit__crc(void) { return PyModule_Create(&module); }
