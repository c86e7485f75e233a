/* A libcuda.so.1 with the few driver calls that runtime/cuda.py makes, over host memory: it lets the real cuda-bindings (and
   PyCUDA) be called here, so that every name, argument order and type is proven. Work runs at once, except while a stream
   captures. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int R;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
typedef struct Copy { void *to; const void *from; size_t size; struct Copy *next; } Copy;
typedef struct { Copy *first; } Graph;
typedef struct { Graph *capture; } Stream;
typedef struct { double when; } Event;
typedef struct Block { char *at; size_t size; int kind; struct Block *next; } Block;

static Block *blocks;
static size_t used;
static int retained;
static __thread void *stack[8];
static __thread int depth;

static int devices(void) { const char *n = getenv("FAKE_CUDA_DEVICES"); return n ? atoi(n) : 2; }
static int lost(void) { return depth == 0; }

static R add(size_t size, int kind, void **out) {
    if (lost()) return INVALID_CONTEXT;
    if (kind == 2 && used + size > (1u << 20)) return OUT_OF_MEMORY;
    Block *b = malloc(sizeof *b);
    b->at = calloc(1, size); b->size = size; b->kind = kind; b->next = blocks; blocks = b;
    used += kind == 2 ? size : 0;
    *out = b->at;
    return OK;
}
static Block *find(const void *p) {
    for (Block *b = blocks; b; b = b->next) if ((char *)p >= b->at && (char *)p < b->at + b->size) return b;
    return NULL;
}
static R drop(void *p) {
    if (lost()) return INVALID_CONTEXT;
    for (Block **b = &blocks; *b; b = &(*b)->next)
        if ((*b)->at == p) { Block *gone = *b; *b = gone->next; used -= gone->kind == 2 ? gone->size : 0; free(gone->at); free(gone); return OK; }
    return INVALID_VALUE;
}
static R copy(void *to, const void *from, size_t size, Stream *s) {
    if (lost() || !find(to) || !find(from)) return INVALID_VALUE;
    if (!s->capture) { memcpy(to, from, size); return OK; }
    Copy *c = malloc(sizeof *c), **end = &s->capture->first;
    *c = (Copy){to, from, size, NULL};
    while (*end) end = &(*end)->next;
    *end = c;
    return OK;
}

R cuInit(unsigned f) { return devices() ? OK : 100; }
R cuDriverGetVersion(int *v) { *v = 13000; return OK; }
R cuDeviceGetCount(int *n) { *n = devices(); return OK; }
R cuDeviceGet(int *d, int i) { if (i >= devices()) return INVALID_DEVICE; *d = i; return OK; }
R cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "Fake GPU %d", d); return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 9 : 0; return OK; }
R cuCtxGetCurrent(void **c) { *c = depth ? stack[depth - 1] : NULL; return OK; }
R cuCtxGetDevice(int *d) { if (lost()) return INVALID_CONTEXT; *d = (int)((intptr_t)stack[depth - 1] & 7); return OK; }
R cuCtxPushCurrent_v2(void *c) { stack[depth++] = c; return OK; }
R cuCtxPopCurrent_v2(void **c) { if (lost()) return INVALID_CONTEXT; *c = stack[--depth]; return OK; }
R cuDevicePrimaryCtxRetain(void **c, int d) { retained++; *c = (void *)(intptr_t)(0x1000 + d); return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { return retained-- > 0 ? OK : INVALID_CONTEXT; }
R cuMemAlloc_v2(uintptr_t *p, size_t n) { return add(n, 2, (void **)p); }
R cuMemFree_v2(uintptr_t p) { return drop((void *)p); }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { return f == 1 ? add(n, 1, p) : INVALID_VALUE; }
R cuMemFreeHost(void *p) { return drop(p); }
R cuPointerGetAttribute(void *out, int a, uintptr_t p) {
    Block *b = find((void *)p);
    if (!b) return INVALID_VALUE;
    *(int *)out = a == 2 ? b->kind : (int)((intptr_t)stack[depth - 1] & 7);
    return OK;
}
R cuMemcpyHtoDAsync_v2(uintptr_t d, const void *h, size_t n, Stream *s) { return copy((void *)d, h, n, s); }
R cuMemcpyDtoHAsync_v2(void *h, uintptr_t d, size_t n, Stream *s) { return copy(h, (void *)d, n, s); }
R cuStreamCreate(Stream **s, unsigned f) { if (lost() || f != 1) return INVALID_VALUE; *s = calloc(1, sizeof **s); return OK; }
R cuStreamDestroy_v2(Stream *s) { free(s); return OK; }
R cuStreamSynchronize(Stream *s) { return s->capture ? 900 : OK; }
R cuStreamWaitEvent(Stream *s, Event *e, unsigned f) { return OK; }
R cuStreamBeginCapture_v2(Stream *s, int mode) { if (mode != 1) return INVALID_VALUE; s->capture = calloc(1, sizeof(Graph)); return OK; }
R cuStreamEndCapture(Stream *s, Graph **g) { *g = s->capture; s->capture = NULL; return OK; }
R cuEventCreate(Event **e, unsigned f) { *e = calloc(1, sizeof **e); return OK; }
R cuEventDestroy_v2(Event *e) { free(e); return OK; }
R cuEventRecord(Event *e, Stream *s) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); e->when = t.tv_sec * 1e3 + t.tv_nsec / 1e6; return OK; }
R cuEventElapsedTime(float *ms, Event *a, Event *b) { *ms = (float)(b->when - a->when); return OK; }
R cuGraphInstantiateWithFlags(Graph **x, Graph *g, unsigned long long f) { *x = malloc(sizeof **x); **x = *g; return OK; }
R cuGraphDestroy(Graph *g) { free(g); return OK; }
R cuGraphLaunch(Graph *x, Stream *s) { for (Copy *c = x->first; c; c = c->next) memcpy(c->to, c->from, c->size); return OK; }
R cuGraphExecDestroy(Graph *x) { free(x); return OK; }
/* What PyCUDA asks for besides. */
R cuDeviceComputeCapability(int *major, int *minor, int d) { *major = 8; *minor = 9; return OK; }
R cuMemGetAddressRange_v2(uintptr_t *base, size_t *n, uintptr_t p) {
    Block *b = find((void *)p);
    if (!b || b->kind != 2) return INVALID_VALUE;
    *base = (uintptr_t)b->at; *n = b->size;
    return OK;
}
R cuCtxSynchronize(void) { return OK; }
R cuCtxCreate_v4(void **c, void *p, unsigned f, int d) { *c = (void *)(intptr_t)(0x2000 + d); stack[depth++] = *c; return OK; }
R cuCtxCreate_v2(void **c, unsigned f, int d) { return cuCtxCreate_v4(c, NULL, f, d); }
R cuCtxDetach(void *c) { return depth-- > 0 ? OK : INVALID_CONTEXT; }
R cuEventElapsedTime_v2(float *ms, Event *a, Event *b) { return cuEventElapsedTime(ms, a, b); }
R cuGetErrorString(R e, const char **s) { *s = "an error"; return OK; }
int fake_retained(void) { return retained; }
int fake_blocks(void) { int n = 0; for (Block *b = blocks; b; b = b->next) n++; return n; }

#define F(name) {#name, (void *)name}
#define V(name, symbol) {#name, (void *)symbol}
static const struct { const char *name; void *call; } table[] = {
    F(cuInit), F(cuDriverGetVersion), F(cuDeviceGetCount), F(cuDeviceGet), F(cuDeviceGetName), F(cuDeviceGetAttribute), F(cuCtxGetCurrent),
    F(cuCtxGetDevice), V(cuCtxPushCurrent, cuCtxPushCurrent_v2), V(cuCtxPopCurrent, cuCtxPopCurrent_v2), F(cuDevicePrimaryCtxRetain),
    V(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2), V(cuMemAlloc, cuMemAlloc_v2), V(cuMemFree, cuMemFree_v2), F(cuMemHostAlloc),
    F(cuMemFreeHost), F(cuPointerGetAttribute), V(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2), V(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2),
    F(cuStreamCreate), V(cuStreamDestroy, cuStreamDestroy_v2), F(cuStreamSynchronize), F(cuStreamWaitEvent),
    V(cuStreamBeginCapture, cuStreamBeginCapture_v2), F(cuStreamEndCapture), F(cuEventCreate), V(cuEventDestroy, cuEventDestroy_v2),
    F(cuEventRecord), F(cuEventElapsedTime), V(cuGraphInstantiate, cuGraphInstantiateWithFlags), F(cuGraphInstantiateWithFlags),
    F(cuGraphDestroy), F(cuGraphLaunch), F(cuGraphExecDestroy),
};
R cuGetProcAddress_v2(const char *name, void **call, int version, uint64_t flags, int *status) {
    *call = NULL;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) if (!strcmp(table[i].name, name)) *call = table[i].call;
    if (!strcmp(name, "cuGetProcAddress")) *call = (void *)cuGetProcAddress_v2;
    if (status) *status = *call ? 0 : 1;
    return *call ? OK : NOT_FOUND;
}
R cuGetProcAddress(const char *name, void **call, int version, uint64_t flags) { return cuGetProcAddress_v2(name, call, version, flags, NULL); }
