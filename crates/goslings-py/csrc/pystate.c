/* What belongs to a goroutine of CPython's per-thread state, and how it is put aside and brought back.
 *
 * The only file that knows private structures of the interpreter. It compiles for the versions it has been
 * taught and refuses others; at import it compares the layout that it was compiled for with the one that runs.
 *
 * Everything here is called by the thread that owns the state, attached to the interpreter. A collector that
 * reads frames from outside has stopped that thread first, so no store here can be seen half done.
 *
 *   base     the worker between two goroutines: no frame, its own data stack and C stack limits
 *   area     one goroutine: lives in the bottom frame of its C stack; filled by gs_save, used by gs_restore
 *
 * Garbage collection on free-threaded 3.14: references on evaluation stacks may be deferred (not counted),
 * and the collector finds them by walking the frames of every thread state. A parked goroutine's frames are
 * on no thread state, so each worker has a second, never attached one, whose chain of frames runs through all
 * goroutines parked there:
 *
 *   hidden->current_frame -> A's top .. A's bottom -> B's top .. B's bottom -> NULL
 *
 * A bottom is a frame of our own, marked as the interpreter's, which everybody who walks frames skips. So a
 * park links and a wake unlinks in a handful of stores, however deep the goroutine is. The references that C
 * code holds on C stacks (c_stack_refs) are chained in the same way; few goroutines park with any. */

#define Py_BUILD_CORE 1
#include "Python.h"
#include <pthread.h>
#include <time.h>
#ifdef Py_GIL_DISABLED
#  include <sys/uio.h> /* process_vm_readv */
#  include <unistd.h>
#endif

#if PY_VERSION_HEX < 0x030D0000 || PY_VERSION_HEX >= 0x030F0000
#  error "goslings knows the thread state of CPython 3.13 and 3.14; this is another version"
#endif
#ifdef PYPY_VERSION
#  error "goslings needs CPython"
#endif

#include "internal/pycore_gc.h"       /* before pycore_tstate.h on 3.13t */
#include "internal/pycore_tstate.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_genobject.h"
#include "internal/pycore_runtime.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_lock.h"
#include "internal/pycore_pystate.h"     /* _Py_THREAD_DETACHED */
#if PY_VERSION_HEX >= 0x030E0000
#  include "internal/pycore_interpframe.h"
#  include "internal/pycore_pythonrun.h"
#  include "internal/pycore_stackref.h"
#endif

#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
#  define HIDDEN_FRAMES 1
#else
#  define HIDDEN_FRAMES 0
#endif

#if PY_VERSION_HEX < 0x030E0000
#  define GENERATOR_FRAME(generator) ((_PyInterpreterFrame *)(generator)->gi_iframe)
#else
#  define GENERATOR_FRAME(generator) (&(generator)->gi_iframe)
#endif

/* How much of the C stack one counted C call may take on 3.13, and how large a stack must be, in KiB, to allow
 * what programs do. A sort inside a sort's key takes most: 2.5 KiB of buffers per level, and its frames. 3.14 looks
 * at the stack pointer instead. */
#if PY_VERSION_HEX < 0x030E0000
#  define C_CALL_BYTES 3328
#  define STACK_KB 8192
#else
#  define STACK_KB 1024
#endif

/* The part of the thread state that is a goroutine's own. */
typedef struct {
    struct _PyInterpreterFrame *current_frame;
    _PyErr_StackItem *exc_info;
    PyObject *context;
    PyObject *delete_later;
    _PyStackChunk *datastack_chunk;
    PyObject **datastack_top;
    PyObject **datastack_limit;
    uintptr_t critical_section;
    PyObject *executor;
    PyObject *asyncio_running_loop;
    Py_tracefunc c_tracefunc;
    Py_tracefunc c_profilefunc;
    PyObject *c_traceobj;
    PyObject *c_profileobj;
    int py_recursion_remaining;
    int recursion_headroom;
    int tracing;
    int what_event;
#if PY_VERSION_HEX < 0x030E0000
    int c_recursion_remaining;
#else
    PyObject *asyncio_running_task;
    uintptr_t c_stack_top;
    uintptr_t c_stack_soft_limit;
    uintptr_t c_stack_hard_limit;
#endif
#if HIDDEN_FRAMES
    struct _PyCStackRef *c_stack_refs;
#endif
} slice;

/* By what `threading.local` finds the data of a thread, and learns of its end. */
typedef struct {
    PyObject *key, *sentinel;
} gs_locals;

typedef struct gs_worker gs_worker;

typedef struct gs_area {
    PyThreadState *tstate;
    gs_worker *worker;
    _PyErr_StackItem exc_state; /* the bottom of the goroutine's exception stack */
    slice own;
    gs_locals locals; /* the goroutine's, while others run; the worker's, while it runs */
    int has_locals;   /* whether it has thread-local data of its own */
#if HIDDEN_FRAMES
    struct _PyInterpreterFrame bottom;
    struct gs_area *newer, *older; /* neighbours among the worker's parked goroutines */
    struct _PyCStackRef *last_ref;  /* end of own.c_stack_refs while chained, else NULL */
#endif
} gs_area;

struct gs_worker {
    PyThreadState *tstate;
    slice base;
    gs_area *running; /* whose state the thread has now; NULL between two goroutines */
    uint64_t free_since;       /* the monitor's: when it first saw the GIL free while the thread was detached, in ns; 0: no */
    unsigned long free_number; /* and how often the GIL had changed hands by then */
#if HIDDEN_FRAMES
    PyThreadState *hidden;
    gs_area *parked; /* the newest */
#endif
};

/* Asked for at each call that may wait. Where a library that is loaded late may have them (glibc keeps room for some),
 * such variables are at a fixed distance from the thread's pointer; elsewhere they are looked up by a call. */
#ifdef __GLIBC__
#  define PER_THREAD __attribute__((tls_model("initial-exec"))) _Thread_local
#else
#  define PER_THREAD _Thread_local
#endif

static PER_THREAD gs_worker *this_worker;

/* Whether a goroutine without a stack of its own runs on this thread. */
static PER_THREAD int stackless;

static void
take(PyThreadState *ts, slice *own)
{
    own->current_frame = ts->current_frame;
    own->exc_info = ts->exc_info;
    own->context = ts->context;
    own->delete_later = ts->delete_later;
    own->datastack_chunk = ts->datastack_chunk;
    own->datastack_top = ts->datastack_top;
    own->datastack_limit = ts->datastack_limit;
    own->c_tracefunc = ts->c_tracefunc;
    own->c_profilefunc = ts->c_profilefunc;
    own->c_traceobj = ts->c_traceobj;
    own->c_profileobj = ts->c_profileobj;
    own->py_recursion_remaining = ts->py_recursion_remaining;
    own->recursion_headroom = ts->recursion_headroom;
    own->tracing = ts->tracing;
    own->what_event = ts->what_event;
    _PyThreadStateImpl *impl = (_PyThreadStateImpl *)ts;
    own->asyncio_running_loop = impl->asyncio_running_loop;
#if PY_VERSION_HEX < 0x030E0000
    own->executor = ts->previous_executor;
    own->c_recursion_remaining = ts->c_recursion_remaining;
#else
    own->executor = ts->current_executor;
    own->asyncio_running_task = impl->asyncio_running_task;
    own->c_stack_top = impl->c_stack_top;
    own->c_stack_soft_limit = impl->c_stack_soft_limit;
    own->c_stack_hard_limit = impl->c_stack_hard_limit;
#endif
#if HIDDEN_FRAMES
    own->c_stack_refs = impl->c_stack_refs;
#endif
}

static void
give(PyThreadState *ts, const slice *own)
{
    ts->current_frame = own->current_frame;
    ts->exc_info = own->exc_info;
    ts->context = own->context;
    ts->context_ver++; /* context variables cache their value by this number */
    ts->delete_later = own->delete_later;
    ts->datastack_chunk = own->datastack_chunk;
    ts->datastack_top = own->datastack_top;
    ts->datastack_limit = own->datastack_limit;
    ts->c_tracefunc = own->c_tracefunc;
    ts->c_profilefunc = own->c_profilefunc;
    ts->c_traceobj = own->c_traceobj;
    ts->c_profileobj = own->c_profileobj;
    ts->py_recursion_remaining = own->py_recursion_remaining;
    ts->recursion_headroom = own->recursion_headroom;
    ts->tracing = own->tracing;
    ts->what_event = own->what_event;
    _PyThreadStateImpl *impl = (_PyThreadStateImpl *)ts;
    impl->asyncio_running_loop = own->asyncio_running_loop;
#if PY_VERSION_HEX < 0x030E0000
    ts->previous_executor = own->executor;
    ts->c_recursion_remaining = own->c_recursion_remaining;
#else
    ts->current_executor = own->executor;
    impl->asyncio_running_task = own->asyncio_running_task;
    impl->c_stack_top = own->c_stack_top;
    impl->c_stack_soft_limit = own->c_stack_soft_limit;
    impl->c_stack_hard_limit = own->c_stack_hard_limit;
#endif
#if HIDDEN_FRAMES
    impl->c_stack_refs = own->c_stack_refs;
#endif
}

/* Thread-local data. By default it is the worker's, shared by the goroutines there. Once `goslings.patch` has asked for
 * it, goroutines that begin have their own. */
static int own_locals; /* set while attached, and never unset */

void
gs_own_locals(void)
{
    _Py_atomic_store_int_relaxed(&own_locals, 1);
}

int
gs_has_own_locals(void)
{
    return _Py_atomic_load_int_relaxed(&own_locals);
}

/* Exchanges what the thread has now for `locals`. */
void
gs_exchange_locals(gs_locals *locals)
{
    PyThreadState *ts = PyThreadState_GetUnchecked();
    gs_locals had = {ts->threading_local_key, ts->threading_local_sentinel};
    ts->threading_local_key = locals->key;
    ts->threading_local_sentinel = locals->sentinel;
    *locals = had;
}

/* Ends the data that the thread has now; that may run any code, which may make new data. */
static void
end_locals(PyThreadState *ts)
{
    for (int times = 0; ts->threading_local_sentinel != NULL && times < 100; times++) {
        gs_locals had = {NULL, NULL};
        gs_exchange_locals(&had);
        Py_XDECREF(had.sentinel); /* its end is what `threading.local` waits for */
        Py_XDECREF(had.key);
    }
}

/* As above, of `locals` on their own: of a goroutine without a stack. */
void
gs_end_locals(gs_locals *locals)
{
    gs_locals had = *locals;
    locals->key = locals->sentinel = NULL;
    Py_XDECREF(had.sentinel);
    Py_XDECREF(had.key);
}

/* The running goroutine's function has returned: its thread-local data ends, while it can still wait. */
void
gs_end_own_locals(void)
{
    gs_worker *worker = this_worker;
    if (worker != NULL && worker->running != NULL && worker->running->has_locals) {
        end_locals(worker->tstate);
    }
}

/* Critical sections are locks of the interpreter that must not stay locked on a stack that is put aside.
 * Detaching releases those that are held; attaching takes the innermost again. In between their list is
 * the thread's own business, so that is when it changes hands. Returns the list. */
static uintptr_t
exchange_critical_sections(PyThreadState *ts, uintptr_t sections)
{
    PyThreadState *me = PyEval_SaveThread();
    uintptr_t found = ts->critical_section;
    ts->critical_section = sections;
    PyEval_RestoreThread(me);
    return found;
}

#if HIDDEN_FRAMES
/* The newest parked goroutine with chained C stack references, from `area` on. */
static gs_area *
next_with_refs(gs_area *area)
{
    while (area != NULL && area->last_ref == NULL) {
        area = area->older;
    }
    return area;
}

/* Chains `area`'s C stack references in front of those of the older goroutines, or takes them out. Walks the
 * parked goroutines, so it is slow; but a goroutine seldom parks below C code that holds such references. */
static void
rechain_refs(gs_worker *worker)
{
    struct _PyCStackRef **place = &((_PyThreadStateImpl *)worker->hidden)->c_stack_refs;
    for (gs_area *area = next_with_refs(worker->parked); area != NULL; area = next_with_refs(area->older)) {
        *place = area->own.c_stack_refs;
        place = &area->last_ref->next;
    }
    *place = NULL;
}

static void
show_to_collector(gs_area *area)
{
    gs_worker *worker = area->worker;
    gs_area *older = worker->parked;
    area->newer = NULL;
    area->older = older;
    area->bottom.previous = NULL;
    if (older != NULL) {
        older->newer = area;
        area->bottom.previous = older->own.current_frame;
    }
    worker->parked = area;
    worker->hidden->current_frame = area->own.current_frame;
    area->last_ref = NULL;
    if (area->own.c_stack_refs != NULL) {
        struct _PyCStackRef *last = area->own.c_stack_refs;
        while (last->next != NULL) {
            last = last->next;
        }
        area->last_ref = last;
        rechain_refs(worker);
    }
}

static void
hide_from_collector(gs_area *area)
{
    gs_worker *worker = area->worker;
    if (area->newer != NULL) {
        area->newer->older = area->older;
        area->newer->bottom.previous = area->bottom.previous;
    }
    else {
        worker->parked = area->older;
        worker->hidden->current_frame = area->bottom.previous;
    }
    if (area->older != NULL) {
        area->older->newer = area->newer;
    }
    area->bottom.previous = NULL;
    if (area->last_ref != NULL) {
        rechain_refs(worker);
        area->last_ref->next = NULL;
        area->last_ref = NULL;
    }
}
#endif

size_t
gs_area_size(void)
{
    return sizeof(gs_area);
}

/* Compares what was compiled for with what runs; NULL if they fit, else what is wrong. */
const char *
gs_layout_problem(void)
{
    if ((Py_Version >> 16) != (PY_VERSION_HEX >> 16)) {
        return "another minor version of CPython than it was built for";
    }
    const struct _Py_DebugOffsets *run = &_PyRuntime.debug_offsets;
    if (run->thread_state.size != sizeof(PyThreadState)
        || run->thread_state.current_frame != offsetof(PyThreadState, current_frame)
        || run->interpreter_frame.size != sizeof(_PyInterpreterFrame)
        || run->interpreter_frame.previous != offsetof(_PyInterpreterFrame, previous)
        || run->interpreter_frame.owner != offsetof(_PyInterpreterFrame, owner)) {
        return "a CPython whose thread state is laid out in another way than in the one it was built for";
    }
#if PY_VERSION_HEX >= 0x030E0000
    /* What lies behind PyThreadState has no published offset: look whether it makes sense. */
    _PyThreadStateImpl *impl = (_PyThreadStateImpl *)PyThreadState_Get();
    uintptr_t here = (uintptr_t)&run;
    if (!(impl->c_stack_hard_limit < impl->c_stack_soft_limit && impl->c_stack_soft_limit < here
          && here < impl->c_stack_top)) {
        return "a CPython whose C stack limits are not where they were in the one it was built for";
    }
#endif
    return NULL;
}

#ifdef Py_GIL_DISABLED
/* In a forked child. The interpreter forks with the world stopped, but a thread that wants to stop it, too, may own
 * its interpreter's lock for that by then, and wait for the stop of the fork to be over. In the child that thread does
 * not exist, nobody would ever unlock, and the next collection would wait for good. */
static void
forked(void)
{
    PyInterpreterState *interp = _PyRuntime.interpreters.head;
    for (; interp != NULL; interp = interp->next) {
        _PyMutex_at_fork_reinit(&interp->stoptheworld.mutex);
    }
}
#endif

/* To be called once. Not 0: the system refuses. */
int
gs_watch_forks(void)
{
#ifdef Py_GIL_DISABLED
    return pthread_atfork(NULL, NULL, forked);
#else
    return 0;
#endif
}

/* The calling thread, attached, becomes a worker. NULL: an exception is set. */
gs_worker *
gs_worker_start(void)
{
    gs_worker *worker = PyMem_RawCalloc(1, sizeof(gs_worker));
    if (worker == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    PyThreadState *ts = PyThreadState_Get();
    worker->tstate = ts;
    take(ts, &worker->base);
#if HIDDEN_FRAMES
    /* Made after the thread's own state, so that whoever looks a thread up by its number (the queues of
     * biased reference counting do) finds that one first. */
    worker->hidden = PyThreadState_New(ts->interp);
    if (worker->hidden == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    worker->hidden->thread_id = (unsigned long)(uintptr_t)worker->hidden; /* nobody's; 0 would mean freed */
#endif
    this_worker = worker;
    return worker;
}

#ifdef Py_GIL_DISABLED
/* Whether a thread waits for the lock of an object (a critical section): it has let go of the interpreter then, too, but
 * for a moment, and whoever else came to work in its place would want the same lock. The section that it waits for is its
 * newest, and has no mutex yet. That lies on the thread's stack, which may be another one by the time that it is read:
 * so the kernel reads it, and what comes of it is a hint. */
static int
waits_for_object(PyThreadState *ts)
{
    uintptr_t section = __atomic_load_n(&ts->critical_section, __ATOMIC_RELAXED) & ~(uintptr_t)3; /* two bits of flags */
    if (section == 0) {
        return 0;
    }
    PyCriticalSection found;
    struct iovec here = {&found, sizeof(found)}, there = {(void *)section, sizeof(found)};
    ssize_t size = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    return size == sizeof(found) && found._cs_mutex == NULL;
}
#endif

/* Whether that worker's thread is surely in a call that has let go of the interpreter. Called from anywhere, not
 * attached; the worker's thread must not end meanwhile. */
int
gs_worker_is_out(gs_worker *worker)
{
    PyThreadState *ts = worker->tstate;
    if (_Py_atomic_load_int_relaxed(&ts->state) != _Py_THREAD_DETACHED) {
        worker->free_since = 0;
        return 0;
    }
    struct _gil_runtime_state *gil = ts->interp->ceval.gil;
#ifdef Py_GIL_DISABLED
    if (!_Py_atomic_load_int_relaxed(&gil->enabled)) {
        return !waits_for_object(ts);
    }
#endif
    /* Who waits for the GIL has also let go. While somebody holds it, and until the next one who waits has got to
     * compute and has taken it. So it must be free for some time, and be nobody's in between. */
    enum { SETTLED_NS = 4000000 };
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    unsigned long number = __atomic_load_n(&gil->switch_number, __ATOMIC_RELAXED);
    if (_Py_atomic_load_int_relaxed(&gil->locked)) {
        worker->free_since = 0;
        return 0;
    }
    if (worker->free_since == 0 || worker->free_number != number) {
        worker->free_since = time;
        worker->free_number = number;
    }
    return time - worker->free_since >= SETTLED_NS;
}

/* Functions of the interpreter that may end the thread instead of returning, under names of ours: see host.rs. */
void
gs_attach(PyThreadState *ts)
{
    PyEval_RestoreThread(ts);
}

PyObject *
gs_call(PyObject *function, PyObject *args, PyObject *kwargs)
{
    return PyObject_Call(function, args, kwargs);
}

PyObject *
gs_call_with(PyObject *function, PyObject *const *args, size_t count)
{
    return PyObject_Vectorcall(function, args, count, NULL);
}

/* Another reference to what a slot holds that others exchange meanwhile, or NULL. As the interpreter does for the
 * items of lists: the memory of an object that goes away stays an object's, or none's, while a thread that is attached
 * may look at it, and who finds no reference left to share gets none. The caller must find out whether what it got
 * was in the slot all the time. */
PyObject *
gs_share_racing(PyObject **slot)
{
#ifndef Py_GIL_DISABLED
    return Py_NewRef(*slot);
#elif PY_VERSION_HEX >= 0x030E0000
    PyObject *object = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    return PyUnstable_TryIncRef(object) ? object : NULL;
#else
    (void)slot;
    return NULL;
#endif
}

/* To be called once for each object that comes into such a slot; `shared`: one of which other threads have used the
 * contents. An object of this thread that goes there will be counted by others, and is made everybody's at once: what
 * is still its thread's, and loses its last reference in another, travels back to its thread to be merged there. */
void
gs_may_race(PyObject *object, int shared)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    if (!shared || object->ob_tid != _Py_ThreadId() || PyUnstable_IsImmortal(object)) {
        PyUnstable_EnableTryIncRef(object);
        return;
    }
    Py_ssize_t before = __atomic_load_n(&object->ob_ref_shared, __ATOMIC_RELAXED), after;
    do {
        Py_ssize_t count = (before >> _Py_REF_SHARED_SHIFT) + (Py_ssize_t)object->ob_ref_local;
        after = (Py_ssize_t)((size_t)count << _Py_REF_SHARED_SHIFT) | _Py_REF_MERGED;
    } while (!__atomic_compare_exchange_n(&object->ob_ref_shared, &before, after, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    __atomic_store_n(&object->ob_ref_local, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&object->ob_tid, 0, __ATOMIC_RELAXED);
#else
    (void)object, (void)shared;
#endif
}

/* Whether other threads than its own have used this object often. */
int
gs_is_shared(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    return (__atomic_load_n(&object->ob_gc_bits, __ATOMIC_RELAXED) & _PyGC_BITS_DEFERRED) != 0;
#else
    (void)object;
    return 0;
#endif
}

/* Uses of this object are counted no more: it goes away with a collection. */
void
gs_uncounted(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    PyUnstable_Object_EnableDeferredRefcount(object);
#else
    (void)object;
#endif
}

/* One use of an object by this thread. If it is another thread's, and every so often, its uses are counted no more:
 * it goes away with a collection. */
void
gs_used(PyObject *object)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    /* One time in 32, by chance: whoever uses many in turn must not meet the same ones again and again. */
    static __thread uint32_t chance = 1;
    if (object->ob_tid != _Py_ThreadId() && (chance = chance * 1664525 + 1013904223) >> 27 == 0) {
        PyUnstable_Object_EnableDeferredRefcount(object);
    }
#else
    (void)object;
#endif
}

int
gs_send(PyObject *iterator, PyObject *value, PyObject **result)
{
    return PyIter_Send(iterator, value, result);
}

/* A new goroutine: a stack from `low` up to `base`, and memory for its first frames from there to `end`. */
void
gs_enter(gs_area *area, uintptr_t low, uintptr_t base, uintptr_t end)
{
    PyThreadState *ts = PyThreadState_GetUnchecked();
    area->tstate = ts;
    area->worker = this_worker;
    area->worker->running = area;
    area->exc_state.exc_value = NULL;
    area->exc_state.previous_item = NULL;

    /* A first chunk of data stack that the interpreter never frees, as its own first one. */
    _PyStackChunk *chunk = (_PyStackChunk *)((base + 15) & ~(uintptr_t)15);
    chunk->previous = NULL;
    chunk->size = end - (uintptr_t)chunk;
    chunk->top = 0;

    area->locals = (gs_locals){NULL, NULL};
    area->has_locals = gs_has_own_locals();
    if (area->has_locals) {
        gs_exchange_locals(&area->locals);
    }
    ts->exc_info = &area->exc_state;
    ts->context = NULL;
    ts->context_ver++;
    ts->datastack_chunk = chunk;
    ts->datastack_top = &chunk->data[1];
    ts->datastack_limit = (PyObject **)end;
    ts->py_recursion_remaining = ts->py_recursion_limit;
#if PY_VERSION_HEX < 0x030E0000
    /* 3.13 counts C calls instead of looking at the stack: as many as fit if each takes C_CALL_BYTES. */
    size_t stack = base - low;
    size_t reserve = 64 * 1024;
    size_t calls = (stack > reserve ? stack - reserve : 0) / C_CALL_BYTES;
    ts->c_recursion_remaining = (int)(calls < Py_C_RECURSION_LIMIT ? calls : Py_C_RECURSION_LIMIT);
#else
    _PyThreadStateImpl *impl = (_PyThreadStateImpl *)ts;
    impl->c_stack_top = base;
    impl->c_stack_hard_limit = low + _PyOS_STACK_MARGIN_BYTES;
    impl->c_stack_soft_limit = low + 2 * _PyOS_STACK_MARGIN_BYTES;
#endif
#if HIDDEN_FRAMES
    memset(&area->bottom, 0, sizeof(area->bottom));
    area->bottom.f_executable = PyStackRef_None;
    area->bottom.owner = FRAME_OWNED_BY_INTERPRETER;
    ts->current_frame = &area->bottom;
#endif
}

/* The goroutine has ended; the worker's own state is back. */
void
gs_leave(gs_area *area)
{
    PyThreadState *ts = area->tstate;
    /* A trace function set by the goroutine goes with it; the interpreter counts them. */
    if (ts->c_tracefunc != NULL && ts->c_tracefunc != area->worker->base.c_tracefunc) {
        PyEval_SetTrace(NULL, NULL);
    }
    if (ts->c_profilefunc != NULL && ts->c_profilefunc != area->worker->base.c_profilefunc) {
        PyEval_SetProfile(NULL, NULL);
    }
    PyObject *exception = area->exc_state.exc_value;
    area->exc_state.exc_value = NULL;
    Py_XDECREF(exception);
    PyObject *context = ts->context;
    ts->context = NULL;
    ts->context_ver++;
    Py_XDECREF(context);
    if (area->has_locals) {
        end_locals(ts);
        gs_exchange_locals(&area->locals);
    }
    area->worker->running = NULL;
    give(ts, &area->worker->base);
}

/* The running goroutine is put aside; the worker's own state is back. */
void
gs_save(gs_area *area)
{
    PyThreadState *ts = area->tstate;
    uintptr_t sections = ts->critical_section;
    if (sections != 0) {
        sections = exchange_critical_sections(ts, 0);
    }
    take(ts, &area->own);
    area->own.critical_section = sections;
    if (area->has_locals) {
        gs_exchange_locals(&area->locals);
    }
#if HIDDEN_FRAMES
    show_to_collector(area);
#endif
    area->worker->running = NULL;
    give(ts, &area->worker->base);
}

/* The goroutine goes on, on the thread it was put aside on. */
void
gs_restore(gs_area *area)
{
    PyThreadState *ts = area->tstate;
#if HIDDEN_FRAMES
    hide_from_collector(area);
#endif
    area->worker->running = area;
    give(ts, &area->own);
    if (area->has_locals) {
        gs_exchange_locals(&area->locals);
    }
    if (area->own.critical_section != 0) {
        exchange_critical_sections(ts, area->own.critical_section);
    }
}

/* Where the running Python code is, or the caller `skip` frames further out: a new reference to its code object
 * and the offset of the instruction, or NULL if no Python code runs there. Far cheaper than a frame object. */
PyObject *
gs_caller(int skip, int *offset)
{
    struct _PyInterpreterFrame *frame = PyThreadState_GetUnchecked()->current_frame;
    while (frame != NULL && (_PyFrame_IsIncomplete(frame) || skip-- > 0)) {
        frame = frame->previous;
    }
    if (frame == NULL) {
        return NULL;
    }
    *offset = PyUnstable_InterpreterFrame_GetLasti(frame);
    return Py_NewRef((PyObject *)_PyFrame_GetCode(frame));
}

/* The same, outside of the files below `folder`. In an import the offset is -1. */
PyObject *
gs_caller_outside(PyObject *folder, int *offset)
{
    struct _PyInterpreterFrame *frame = PyThreadState_GetUnchecked()->current_frame;
    for (; frame != NULL; frame = frame->previous) {
        if (_PyFrame_IsIncomplete(frame)) {
            continue;
        }
        PyCodeObject *code = _PyFrame_GetCode(frame);
        if (PyUnicode_Tailmatch(code->co_filename, folder, 0, PY_SSIZE_T_MAX, -1) == 1) {
            continue;
        }
        int frozen = PyUnicode_CompareWithASCIIString(code->co_filename, "<frozen importlib._bootstrap>") == 0;
        *offset = frozen ? -1 : PyUnstable_InterpreterFrame_GetLasti(frame);
        return Py_NewRef((PyObject *)code);
    }
    return NULL;
}

/* Whether the goroutine of `area` is the one that its worker runs. The world stands still. */
int
gs_is_running(const gs_area *area)
{
    return area->worker->running == area;
}

static Py_ssize_t
list_frames(struct _PyInterpreterFrame *frame, const struct _PyInterpreterFrame *end, PyObject **codes, int *offsets,
            Py_ssize_t room)
{
    Py_ssize_t count = 0;
    for (; frame != NULL && frame != end; frame = frame->previous) {
        if (_PyFrame_IsIncomplete(frame)) {
            continue;
        }
        if (count < room) {
            codes[count] = Py_NewRef((PyObject *)_PyFrame_GetCode(frame));
            offsets[count] = PyUnstable_InterpreterFrame_GetLasti(frame);
        }
        count++;
    }
    return count;
}

/* What the suspended generator or coroutine `of` waits for, if that is one, too: borrowed, or NULL. */
static PyGenObject *
awaited_by(PyGenObject *of)
{
    PyObject *awaited = _PyGen_yf(of);
    if (awaited == NULL) {
        return NULL;
    }
    Py_DECREF(awaited); /* `of` holds it, too, and stands still */
    if (Py_IS_TYPE(awaited, &_PyAsyncGenASend_Type)) {
        awaited = ((PyObject **)awaited)[sizeof(PyObject) / sizeof(PyObject *)]; /* its first field: the generator */
    }
    int known = PyCoro_CheckExact(awaited) || PyGen_CheckExact(awaited) || PyAsyncGen_CheckExact(awaited);
    return known ? (PyGenObject *)awaited : NULL;
}

static struct _PyInterpreterFrame *
generator_frame(PyGenObject *generator)
{
    return (struct _PyInterpreterFrame *)(void *)&generator->gi_iframe;
}

/* The frames from `frame` to `last`, as gs_frames; 0 if `last` is not among them. */
static Py_ssize_t
frames_until(struct _PyInterpreterFrame *frame, struct _PyInterpreterFrame *last, PyObject **codes, int *offsets,
             Py_ssize_t room)
{
    Py_ssize_t count = 0;
    struct _PyInterpreterFrame *one = frame;
    while (one != NULL && one != last) {
        one = one->previous;
    }
    for (; one != NULL && frame != last->previous; frame = frame->previous) {
        if (_PyFrame_IsIncomplete(frame)) {
            continue;
        }
        if (count < room) {
            codes[count] = Py_NewRef((PyObject *)_PyFrame_GetCode(frame));
            offsets[count] = PyUnstable_InterpreterFrame_GetLasti(frame);
        }
        count++;
    }
    return count;
}

/* Whether a coroutine is being run. The world stands still. */
int
gs_coroutine_is_running(PyObject *coroutine)
{
    return PyCoro_CheckExact(coroutine) && ((PyGenObject *)coroutine)->gi_frame_state == FRAME_EXECUTING;
}

/* As gs_frames, of a coroutine: with those of the coroutines and generators that it awaits. */
Py_ssize_t
gs_coroutine_frames(PyObject *coroutine, PyObject **codes, int *offsets, Py_ssize_t room)
{
    if (!PyCoro_CheckExact(coroutine)) {
        return 0;
    }
    PyGenObject *outermost = (PyGenObject *)coroutine;
    if (outermost->gi_frame_state == FRAME_EXECUTING) {
        Py_ssize_t count = 0;
        PyThreadState *ts = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
        for (; ts != NULL && count == 0; ts = PyThreadState_Next(ts)) {
            count = frames_until(ts->current_frame, generator_frame(outermost), codes, offsets, room);
        }
        return count;
    }
    Py_ssize_t count = 0;
    for (PyGenObject *one = outermost; one != NULL && one->gi_frame_state < FRAME_EXECUTING; one = awaited_by(one)) {
        count++;
    }
    PyGenObject *one = outermost;
    for (Py_ssize_t i = count - 1; i >= 0; i--, one = awaited_by(one)) {
        if (i < room) {
            codes[i] = Py_NewRef((PyObject *)_PyFrame_GetCode(generator_frame(one)));
            offsets[i] = PyUnstable_InterpreterFrame_GetLasti(generator_frame(one));
        }
    }
    return count;
}

/* The Python frames of a goroutine, innermost first: for each the code object, a new reference, and the offset of
 * the instruction. Fills at most `room` places and returns how many frames there are. The world stands still. */
Py_ssize_t
gs_frames(const gs_area *area, PyObject **codes, int *offsets, Py_ssize_t room)
{
    struct _PyInterpreterFrame *frame = gs_is_running(area) ? area->tstate->current_frame : area->own.current_frame;
#if HIDDEN_FRAMES
    return list_frames(frame, &area->bottom, codes, offsets, room); /* what follows is another goroutine's */
#else
    return list_frames(frame, NULL, codes, offsets, room);
#endif
}

/* The same for whatever runs on a worker's thread. */
Py_ssize_t
gs_worker_frames(gs_worker *worker, PyObject **codes, int *offsets, Py_ssize_t room)
{
    return worker->tstate == NULL ? 0 : list_frames(worker->tstate->current_frame, NULL, codes, offsets, room);
}

/* Locks of threads, and preemption. A goroutine that is interrupted while it holds one would keep it while others run
 * on the same thread: who of them wants it would wait for ever, or (an RLock) be let in. So before a goroutine is
 * interrupted its frames are searched for a lock that it may hold:
 *
 *   - managers of `with` blocks that it is in: locks, and objects with a lock among their attributes;
 *   - locks that its frames name: locals, closures, globals, attributes of their first argument (`self`).
 *
 * So is whatever `threading` defines and a `with` block has entered, unless `goslings.patch` has made it park; and who
 * imports holds the locks of its modules, which a goroutine without a stack may want on the same thread.
 *
 * A lock has no owner that one could ask for, so one that is locked by somebody else counts, too. */

static PyTypeObject *lock_type, *rlock_type;

/* Learns the types of locks. 0, or -1 with an exception set. */
int
gs_learn_locks(PyObject *lock, PyObject *rlock)
{
    if (!PyType_Check(lock) || !PyType_Check(rlock)) {
        PyErr_SetString(PyExc_TypeError, "not types");
        return -1;
    }
    lock_type = (PyTypeObject *)Py_NewRef(lock);
    rlock_type = (PyTypeObject *)Py_NewRef(rlock);
    return 0;
}

/* Whether `object` is a lock that this thread may hold. */
static int
is_held_lock(PyObject *object)
{
    const char *question = "locked";
    if (PyType_IsSubtype(Py_TYPE(object), rlock_type)) {
        question = "_is_owned";
    }
    else if (Py_TYPE(object) != lock_type) {
        return 0;
    }
    PyObject *answer = PyObject_CallMethod(object, question, NULL);
    if (answer == NULL) {
        PyErr_Clear();
        return 1;
    }
    Py_DECREF(answer); /* a bool */
    return answer == Py_True;
}

/* Whether that is code of the import system. */
static int
is_importing(PyCodeObject *code)
{
    static const char importlib[] = "<frozen importlib._bootstrap>";
    Py_ssize_t size;
    const char *file = PyUnicode_AsUTF8AndSize(code->co_filename, &size);
    if (file == NULL) {
        PyErr_Clear();
        return 0;
    }
    return size == sizeof importlib - 1 && memcmp(file, importlib, size) == 0;
}

static int frame_may_hold_lock(struct _PyInterpreterFrame *frame);

/* As many attributes of one object are looked at. */
#define ATTRIBUTES_MAX 64

/* Whether `object` is such a lock or has one among its attributes, or (with a `depth` of 2) among theirs. */
static int
has_held_lock(PyObject *object, int depth)
{
    if (is_held_lock(object)) {
        return 1;
    }
    if (depth > 0 && PyGen_CheckExact(object)) {
        /* The body of a `contextlib.contextmanager`, if it waits at its `yield`. */
        PyGenObject *generator = (PyGenObject *)object;
        return FRAME_STATE_SUSPENDED(generator->gi_frame_state) && frame_may_hold_lock(GENERATOR_FRAME(generator));
    }
    if (depth == 0 || PyType_Check(object) || !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE)
        || !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_MANAGED_DICT)) {
        return 0;
    }
    PyObject *dict = PyObject_GenericGetDict(object, NULL);
    if (dict == NULL) {
        PyErr_Clear();
        return 0;
    }
    PyObject *values[ATTRIBUTES_MAX];
    int count = 0, found = 0;
    Py_ssize_t place = 0;
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(dict);
    while (count < ATTRIBUTES_MAX && PyDict_Next(dict, &place, NULL, &value)) {
        if (!PyType_HasFeature(Py_TYPE(value), Py_TPFLAGS_IMMUTABLETYPE) || Py_TYPE(value) == lock_type
            || Py_TYPE(value) == rlock_type || PyGen_CheckExact(value)) {
            values[count++] = Py_NewRef(value);
        }
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(dict);
    for (int i = 0; i < count; i++) {
        found = found || has_held_lock(values[i], depth - 1);
        Py_DECREF(values[i]);
    }
    return found;
}

/* What a place of a frame holds, borrowed from it; NULL if nothing, or no object. */
static PyObject *
object_at(struct _PyInterpreterFrame *frame, int place)
{
#if PY_VERSION_HEX < 0x030E0000
    return frame->localsplus[place];
#else
    _PyStackRef ref = frame->localsplus[place];
    return PyStackRef_IsNullOrInt(ref) ? NULL : PyStackRef_AsPyObjectBorrow(ref);
#endif
}

static const unsigned char *
read_varint(const unsigned char *at, int *value)
{
    int read = *at & 63;
    while (*at++ & 64) {
        read = (read << 6) | (*at & 63);
    }
    *value = read;
    return at;
}

/* How much of its evaluation stack a frame would keep if an exception were raised now, which is what the `with` blocks
 * it is in have left there (and more). The height of the stack itself is only known to the interpreter's loop. */
static int
kept_depth(PyCodeObject *code, int index)
{
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(code->co_exceptiontable);
    const unsigned char *end = at + PyBytes_GET_SIZE(code->co_exceptiontable);
    while (at < end) {
        int start, size, target, depth;
        at = read_varint(read_varint(read_varint(read_varint(at, &start), &size), &target), &depth);
        if (start <= index && index < start + size) {
            return depth >> 1;
        }
    }
    return 0;
}

/* The object that an item of the evaluation stack is the `__exit__` of; NULL if it is none. */
static PyObject *
manager_of(PyObject *item)
{
    if (PyMethod_Check(item)) {
        return PyMethod_GET_SELF(item);
    }
    return PyCFunction_Check(item) ? PyCFunction_GetSelf(item) : item;
}

/* Whether the class of `object` is one of the module `threading`. */
static int
is_of_threading(PyObject *object)
{
    PyObject *module = NULL;
    if (PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE)
        && PyObject_GetOptionalAttrString((PyObject *)Py_TYPE(object), "__module__", &module) < 0) {
        PyErr_Clear();
    }
    int yes = module != NULL && PyUnicode_Check(module) && PyUnicode_EqualToUTF8(module, "threading");
    Py_XDECREF(module);
    return yes;
}

static int
frame_may_hold_lock(struct _PyInterpreterFrame *frame)
{
    PyCodeObject *code = _PyFrame_GetCode(frame);
    for (int i = 0; i < code->co_nlocalsplus; i++) {
        PyObject *local = object_at(frame, i);
        if (local == NULL) {
            continue;
        }
        if (PyCell_Check(local)) {
            PyObject *inner = PyCell_Get(local);
            int found = inner != NULL && is_held_lock(inner);
            Py_XDECREF(inner);
            if (found) {
                return 1;
            }
        }
        else if (has_held_lock(local, i == 0 && code->co_argcount > 0)) {
            return 1;
        }
    }
    int depth = kept_depth(code, PyUnstable_InterpreterFrame_GetLasti(frame) / (int)sizeof(_Py_CODEUNIT));
    for (int i = 0; i < depth; i++) {
        PyObject *item = object_at(frame, code->co_nlocalsplus + i);
        PyObject *manager = item == NULL ? NULL : manager_of(item);
        if (manager != NULL && ((!gs_has_own_locals() && is_of_threading(manager)) || has_held_lock(manager, 2))) {
            return 1;
        }
    }
    if (!PyDict_CheckExact(frame->f_globals)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_names); i++) {
        PyObject *value = NULL;
        if (PyDict_GetItemRef(frame->f_globals, PyTuple_GET_ITEM(code->co_names, i), &value) < 0) {
            PyErr_Clear();
        }
        int found = value != NULL && is_held_lock(value);
        Py_XDECREF(value);
        if (found) {
            return 1;
        }
    }
    return 0;
}

/* Whether the goroutine that runs here may hold a lock of threads. Runs no Python code. */
int
gs_may_hold_lock(void)
{
    struct _PyInterpreterFrame *frame = PyThreadState_GetUnchecked()->current_frame;
    for (; frame != NULL; frame = frame->previous) {
        if (!_PyFrame_IsIncomplete(frame)
            && (is_importing(_PyFrame_GetCode(frame)) || frame_may_hold_lock(frame))) {
            return 1;
        }
    }
    return 0;
}

typedef void (*gs_visit)(void *arg, PyObject *object, int counted, int sure);

#if PY_VERSION_HEX >= 0x030E0000
static void
show_ref(_PyStackRef ref, gs_visit visit, void *arg)
{
    uintptr_t tag = ref.bits & 3;
    PyObject *object = (PyObject *)(ref.bits & ~(uintptr_t)3);
    if (tag != 3 && object != NULL) { /* 3: a number */
        visit(arg, object, (tag & 1) == 0, 1);
    }
}
#endif

static void
show(PyObject *object, gs_visit visit, void *arg)
{
    if (object != NULL) {
        visit(arg, object, 1, 1);
    }
}

/* Shows every reference that the frames of a parked goroutine hold: `counted`, if it is counted by the object, and
 * `sure`, if there is an object for certain. 3.13 does not say how deep the evaluation stack is of a frame that has
 * called C code: `depths` has that for the frames that gs_frames gives, -1 where nobody knows; what lies there may be
 * no object any more. Returns 0, or -1 if not every reference can be told. The world stands still. */
int
gs_frame_refs(const gs_area *area, const int *depths, Py_ssize_t known, gs_visit visit, void *arg)
{
    if (gs_is_running(area)) {
        return -1;
    }
    Py_ssize_t index = 0;
    for (struct _PyInterpreterFrame *frame = area->own.current_frame; frame != NULL; frame = frame->previous) {
#if HIDDEN_FRAMES
        if (frame == &area->bottom) {
            break;
        }
#endif
#if PY_VERSION_HEX >= 0x030E0000
        if (frame->owner >= FRAME_OWNED_BY_INTERPRETER) {
            continue; /* holds nothing */
        }
        if (_PyFrame_IsIncomplete(frame) || frame->stackpointer == NULL) {
            return -1;
        }
        show_ref(frame->f_executable, visit, arg);
        show_ref(frame->f_funcobj, visit, arg);
        for (_PyStackRef *ref = frame->localsplus; ref < frame->stackpointer; ref++) {
            show_ref(*ref, visit, arg);
        }
#else
        if (frame->owner == FRAME_OWNED_BY_CSTACK) {
            continue;
        }
        if (_PyFrame_IsIncomplete(frame)) {
            return -1;
        }
        show(frame->f_executable, visit, arg);
        show(frame->f_funcobj, visit, arg);
        int locals = _PyFrame_GetCode(frame)->co_nlocalsplus;
        int depth = frame->stacktop >= 0 ? frame->stacktop - locals : index < known ? depths[index] : -1;
        if (depth < 0) {
            return -1;
        }
        for (int i = 0; i < locals + depth; i++) {
            if (frame->localsplus[i] != NULL) {
                visit(arg, frame->localsplus[i], 1, i < locals || frame->stacktop >= 0);
            }
        }
#endif
        show(frame->f_locals, visit, arg);
        show((PyObject *)frame->frame_obj, visit, arg);
        index++;
    }
    return 0;
}

/* Shows every reference that a suspended generator or coroutine holds, as gs_frame_refs. Returns -1, having shown
 * nothing, if it runs. The world stands still. */
int
gs_generator_refs(PyObject *object, gs_visit visit, void *arg)
{
    PyGenObject *generator = (PyGenObject *)object;
    if (generator->gi_frame_state == FRAME_EXECUTING) {
        return -1;
    }
    if (generator->gi_frame_state < FRAME_EXECUTING) {
        struct _PyInterpreterFrame *frame = generator_frame(generator);
#if PY_VERSION_HEX >= 0x030E0000
        if (frame->stackpointer == NULL) {
            return -1;
        }
        show_ref(frame->f_executable, visit, arg);
        show_ref(frame->f_funcobj, visit, arg);
        for (_PyStackRef *ref = frame->localsplus; ref < frame->stackpointer; ref++) {
            show_ref(*ref, visit, arg);
        }
#else
        if (frame->stacktop < 0) {
            return -1;
        }
        show(frame->f_executable, visit, arg);
        show(frame->f_funcobj, visit, arg);
        for (int i = 0; i < frame->stacktop; i++) {
            show(frame->localsplus[i], visit, arg);
        }
#endif
        show(frame->f_locals, visit, arg);
        show((PyObject *)frame->frame_obj, visit, arg);
    }
    show(generator->gi_exc_state.exc_value, visit, arg);
    if (!PyGen_CheckExact(object)) { /* where nothing is ever written there */
        show(generator->gi_origin_or_finalizer, visit, arg);
    }
    return 0;
}

/* Whether this thread (or goroutine) has a context: until a context variable is set there may be none. */
int
gs_has_context(void)
{
    return PyThreadState_GetUnchecked()->context != NULL;
}

/* Ends an iterator with a value (stolen): as raising StopIteration(value) does, without the calls in between. What
 * awaits takes the value out at once. */
void
gs_stop_iteration(PyObject *value)
{
    PyTypeObject *type = (PyTypeObject *)PyExc_StopIteration;
    PyStopIterationObject *stop = (PyStopIterationObject *)type->tp_alloc(type, 0);
    if (stop == NULL) {
        Py_DECREF(value);
        return;
    }
    stop->args = PyTuple_New(0);
    stop->value = value;
    PyErr_SetRaisedException((PyObject *)stop);
}

/* Makes `context` (or NULL) the current one; returns the one before. Both are owned by whoever holds them. */
PyObject *
gs_exchange_context(PyObject *context)
{
    PyThreadState *ts = PyThreadState_GetUnchecked();
    PyObject *before = ts->context;
    ts->context = context;
    ts->context_ver++;
    return before;
}

/* The asyncio event loop that runs on this thread (or in this goroutine): borrowed, or NULL. */
PyObject *
gs_running_loop(void)
{
    return ((_PyThreadStateImpl *)PyThreadState_GetUnchecked())->asyncio_running_loop;
}

/* From now on a goroutine without a stack runs here, or none any more. */
void
gs_set_stackless(int now)
{
    stackless = now;
}

/* Whether a call that waits would hold up coroutines, if it is one of theirs. */
int
gs_is_among_coroutines(void)
{
    return stackless || gs_running_loop() != NULL;
}

/* Where the calling code runs: 0: on a thread that is no worker; 1: in a goroutine, where it may wait; 3: in a goroutine
 * without a stack, or among the coroutines of an event loop. */
int
gs_here(void)
{
    return this_worker == NULL ? 0 : gs_is_among_coroutines() ? 3 : 1;
}

/* Whether the thread is a worker. */
int
gs_is_worker(void)
{
    return this_worker != NULL;
}

/* Makes an object of `memory` that was one of the same class, to which it still holds its reference. */
PyObject *
gs_revive(void *memory)
{
    PyObject *object = memory;
    _Py_NewReference(object);
    return object;
}

/* Whether `function` is an `async def` function or method; -1: it is something that may contain one. */
int
gs_is_async(PyObject *function)
{
    if (PyMethod_Check(function)) {
        function = PyMethod_GET_FUNCTION(function);
    }
    if (!PyFunction_Check(function)) {
        return PyCFunction_Check(function) || PyType_Check(function) ? 0 : -1;
    }
    return (((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags & CO_COROUTINE) != 0;
}

/* Whether the code that runs here belongs to a coroutine: the code object of the nearest one, borrowed, or NULL. */
PyObject *
gs_nearest_coroutine(void)
{
    struct _PyInterpreterFrame *frame = PyThreadState_GetUnchecked()->current_frame;
    for (; frame != NULL; frame = frame->previous) {
        if (_PyFrame_IsIncomplete(frame)) {
            continue;
        }
        PyCodeObject *code = _PyFrame_GetCode(frame);
        if (code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)) {
            return (PyObject *)code;
        }
    }
    return NULL;
}

/* The default size of a goroutine's stack, in KiB. */
size_t
gs_stack_kb(void)
{
    return STACK_KB;
}
