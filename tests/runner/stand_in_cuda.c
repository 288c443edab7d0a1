// A libcuda.so.1 for machines without a GPU: memory is the processor's, and what a stream is told happens when somebody
// waits for it, so that a missing wait shows. It counts what lives, and refuses calls without a current context.
// Names and signatures as in CUDA's driver API documentation. The test adds, from STUBS, what else pycuda links to.
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600, NOT_SUPPORTED = 801,
       CAPTURE_FORBIDS = 900, CAPTURE_BROKEN = 901 };
enum { MEMORY, LOCKED, STREAM, EVENT, GRAPH, EXECUTABLE, PRIMARY, KINDS };

typedef struct { void* to; const void* from; size_t size; } Op;
typedef struct { Op* ops; int count, room; } Ops;
typedef struct { Ops waiting, captured; int capturing, broken; } Stream;

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int live[KINDS], fail_after = -1, complaints;
static int64_t used, total = 1 << 30;
static __thread int depth;  // of this thread's stack of contexts
static __thread Stream* capturing;
#define STUBBED(name) int name(void) { return NOT_SUPPORTED; }
#ifdef STUBS
STUBS
#endif
#define NEEDS_CONTEXT if (!depth) { complaints++; return NO_CONTEXT; }
#define UNCAPTURED if (capturing) { capturing->broken = 1; return CAPTURE_FORBIDS; }

static void push(Ops* list, Op op) {
  if (list->count == list->room) list->ops = realloc(list->ops, sizeof(Op) * (list->room = 2 * list->room + 8));
  list->ops[list->count++] = op;
}
static int start(Stream* stream, Op op) {
  pthread_mutex_lock(&lock);
  push(stream->capturing ? &stream->captured : &stream->waiting, op);
  pthread_mutex_unlock(&lock);
  return OK;
}
static void finish(Stream* stream) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < stream->waiting.count; i++) {
    Op op = stream->waiting.ops[i];
    memcpy(op.to, op.from, op.size);
  }
  stream->waiting.count = 0;
  pthread_mutex_unlock(&lock);
}
static int may_fail(void) { return fail_after >= 0 && fail_after-- == 0; }
static void count(int kind, int change) { pthread_mutex_lock(&lock); live[kind] += change; pthread_mutex_unlock(&lock); }

// For the test.
int stand_in_live(int kind) { return live[kind]; }
int stand_in_depth(void) { return depth; }
int stand_in_complaints(void) { return complaints; }
int64_t stand_in_used(void) { return used; }
void stand_in_fail_after(int calls) { fail_after = calls; }

#ifndef INIT
#define INIT OK
#endif
#ifndef GPUS
#define GPUS 1
#endif
int cuInit(unsigned flags) { return flags ? INVALID : INIT; }
int cuDriverGetVersion(int* version) { *version = 13000; return OK; }
int cuDeviceGetCount(int* number) { *number = GPUS; return OK; }
int cuDeviceGet(int* device, int ordinal) { *device = 0; return ordinal ? INVALID : OK; }
int cuDeviceGetName(char* name, int room, int device) { snprintf(name, room, "stand-in"); return device; }
int cuDeviceComputeCapability(int* major, int* minor, int device) { *major = 8; *minor = 7; return device; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = 0; return device; }
int cuGetErrorString(int code, const char** text) {
  *text = code == NO_MEMORY ? "out of memory" : code == NO_CONTEXT ? "invalid device context" : "stand-in error";
  return OK;
}
int cuGetErrorName(int code, const char** text) { return cuGetErrorString(code, text); }

int cuDevicePrimaryCtxRetain(void** context, int device) { *context = &live; count(PRIMARY, 1); return device; }
int cuDevicePrimaryCtxRelease_v2(int device) { count(PRIMARY, -1); return device; }
int cuCtxPushCurrent_v2(void* context) { depth++; return context == &live ? OK : INVALID; }
int cuCtxPopCurrent_v2(void** context) { NEEDS_CONTEXT depth--; *context = &live; return OK; }
int cuCtxGetCurrent(void** context) { *context = depth ? &live : 0; return OK; }
int cuCtxGetDevice(int* device) { NEEDS_CONTEXT *device = 0; return OK; }

// A header keeps the size, and the alignment that CUDA promises.
static int allocate(void** address, size_t size, int kind) {
  NEEDS_CONTEXT UNCAPTURED
  if (!size) return INVALID;
  if (may_fail() || used + (int64_t)size > total) return NO_MEMORY;
  char* raw = aligned_alloc(256, (size + 511) / 256 * 256);
  *(size_t*)raw = size;
  memset(raw + 256, 0xff, size);  // NaN
  *address = raw + 256;
  pthread_mutex_lock(&lock);
  used += size; live[kind]++;
  pthread_mutex_unlock(&lock);
  return OK;
}
static int release(void* address, int kind) {
  NEEDS_CONTEXT UNCAPTURED
  char* raw = (char*)address - 256;
  pthread_mutex_lock(&lock);
  used -= *(size_t*)raw; live[kind]--;
  pthread_mutex_unlock(&lock);
  free(raw);
  return OK;
}
int cuMemAlloc_v2(uintptr_t* address, size_t size) { return allocate((void**)address, size, MEMORY); }
int cuMemFree_v2(uintptr_t address) { return release((void*)address, MEMORY); }
int cuMemHostAlloc(void** address, size_t size, unsigned flags) { (void)flags; return allocate(address, size, LOCKED); }
int cuMemFreeHost(void* address) { return release(address, LOCKED); }
int cuMemGetInfo_v2(size_t* left, size_t* all) { NEEDS_CONTEXT *left = total - used; *all = total; return OK; }

int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t size, Stream* stream) {
  NEEDS_CONTEXT
  return start(stream, (Op){(void*)to, from, size});
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t size, Stream* stream) {
  NEEDS_CONTEXT
  return start(stream, (Op){to, (void*)from, size});
}
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t size, Stream* stream) {
  NEEDS_CONTEXT
  return start(stream, (Op){(void*)to, (void*)from, size});
}

int cuStreamCreate(Stream** stream, unsigned flags) {
  NEEDS_CONTEXT
  if (may_fail()) return NO_MEMORY;
  (void)flags; *stream = calloc(1, sizeof(Stream)); count(STREAM, 1);
  return OK;
}
int cuStreamDestroy_v2(Stream* stream) {
  NEEDS_CONTEXT
  if (stream->waiting.count || stream->capturing) complaints++;  // ours to have waited
  count(STREAM, -1);
  return OK;
}
int cuStreamSynchronize(Stream* stream) { NEEDS_CONTEXT UNCAPTURED finish(stream); return OK; }

typedef struct { Stream* stream; } Event;
int cuEventCreate(Event** event, unsigned flags) {
  NEEDS_CONTEXT
  (void)flags; *event = calloc(1, sizeof(Event)); count(EVENT, 1);
  return OK;
}
int cuEventDestroy_v2(Event* event) { NEEDS_CONTEXT count(EVENT, -1); free(event); return OK; }
int cuEventRecord(Event* event, Stream* stream) { NEEDS_CONTEXT event->stream = stream; return OK; }
int cuEventSynchronize(Event* event) { NEEDS_CONTEXT finish(event->stream); return OK; }
int cuEventElapsedTime_v2(float* milliseconds, Event* first, Event* last) {
  if (!first->stream || last->stream->waiting.count) return NOT_READY;
  *milliseconds = 0.25f;
  return OK;
}
int cuEventElapsedTime(float* milliseconds, Event* first, Event* last) {
  return cuEventElapsedTime_v2(milliseconds, first, last);
}

int cuStreamBeginCapture_v2(Stream* stream, int mode) {
  NEEDS_CONTEXT
  if (mode != 1 || stream->waiting.count) return INVALID;  // thread-local, and idle
  stream->capturing = 1; stream->broken = 0; stream->captured.count = 0; capturing = stream;
  return OK;
}
int cuStreamEndCapture(Stream* stream, Ops** graph) {
  NEEDS_CONTEXT
  stream->capturing = 0; capturing = 0;
  if (stream->broken) return CAPTURE_BROKEN;
  *graph = calloc(1, sizeof(Ops)); count(GRAPH, 1);
  for (int i = 0; i < stream->captured.count; i++) push(*graph, stream->captured.ops[i]);
  return OK;
}
int cuGraphInstantiateWithFlags(Ops** executable, Ops* graph, unsigned long long flags) {
  NEEDS_CONTEXT
  if (may_fail()) return NO_MEMORY;
  if (flags) return INVALID;
  *executable = calloc(1, sizeof(Ops)); count(EXECUTABLE, 1);
  for (int i = 0; i < graph->count; i++) push(*executable, graph->ops[i]);
  return OK;
}
int cuGraphDestroy(Ops* graph) { NEEDS_CONTEXT count(GRAPH, -1); free(graph->ops); free(graph); return OK; }
int cuGraphExecDestroy(Ops* graph) { NEEDS_CONTEXT count(EXECUTABLE, -1); free(graph->ops); free(graph); return OK; }
int cuGraphLaunch(Ops* graph, Stream* stream) {
  NEEDS_CONTEXT
  for (int i = 0; i < graph->count; i++) start(stream, graph->ops[i]);
  return OK;
}

// cuda-python asks for functions by name; the newest form of each carries a suffix.
int cuGetProcAddress_v2(const char* symbol, void** function, int version, uint64_t flags, int* status) {
  char name[128];
  const char* suffixes[] = {"_v2", "WithFlags", ""};
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
    if ((*function = dlsym(RTLD_DEFAULT, name))) break;
    void* self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (self && (*function = dlsym(self, name))) break;
  }
  (void)version; (void)flags;
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char* symbol, void** function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, 0);
}
