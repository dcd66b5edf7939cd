// A stand-in for libcudart: the signatures of CUDA 12 and 13, host memory for device memory, calls counted, and the
// error code of any call chosen by the test. What is allocated and not freed is told by `live`.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>

typedef void* handle;
static std::map<std::string, int> fails, calls;
static std::set<void*> held;
static bool capturing = false;
static void (*replay)() = nullptr;

static int did(const char* name) {
    ++calls[name];
    auto found = fails.find(name);
    return found == fails.end() ? 0 : found->second;
}
static int give(const char* name, handle* out, size_t size) {
    if (int code = did(name)) return code;
    held.insert(*out = malloc(size ? size : 1));
    return 0;
}
static int take(const char* name, handle one) {
    if (int code = did(name)) return code;
    if (!held.erase(one)) abort();  // freed twice, or never allocated
    free(one);
    return 0;
}
static double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

extern "C" {
void stub_reset() { fails.clear(); calls.clear(); capturing = false; replay = nullptr; }
void stub_replay(void (*what)()) { replay = what; }  // what a launched graph does
void stub_fail(const char* name, int code) { fails[name] = code; }
int stub_calls(const char* name) { return calls[name]; }
void stub_forget() { for (void* one : held) free(one); held.clear(); }
int stub_live() { return (int)held.size(); }
int stub_capturing() { return capturing; }

const char* cudaGetErrorString(int code) { return code == 35 ? "CUDA driver version is insufficient" : "some error"; }
int cudaGetDeviceCount(int* n) { *n = 1; return did("cudaGetDeviceCount"); }
int cudaSetDevice(int) { return did("cudaSetDevice"); }
int cudaDeviceGetAttribute(int* value, int which, int) {
    *value = which == 75 ? 8 : which == 76 ? 7 : which == 18 ? 1 : -1;
    return did("cudaDeviceGetAttribute");
}
int cudaGetDeviceProperties(char* properties, int) {
    memset(properties, 0xff, 1000);
    strcpy(properties, "Orin");
    return did("cudaGetDeviceProperties");
}
int cudaDriverGetVersion(int* v) { *v = 13020; return did("cudaDriverGetVersion"); }
int cudaRuntimeGetVersion(int* v) { *v = 12060; return did("cudaRuntimeGetVersion"); }
int cudaMemGetInfo(size_t* free_, size_t* total) { *free_ = 5ull << 30; *total = 8ull << 30; return did("cudaMemGetInfo"); }
int cudaMalloc(handle* out, size_t size) { return give("cudaMalloc", out, size); }
int cudaFree(handle one) { return take("cudaFree", one); }
int cudaMallocHost(handle* out, size_t size) { return give("cudaMallocHost", out, size); }
int cudaFreeHost(handle one) { return take("cudaFreeHost", one); }
int cudaMemcpyAsync(handle to, handle from, size_t size, int kind, handle stream) {
    if (int code = did("cudaMemcpyAsync")) return code;
    if (kind != 1 && kind != 2) return 21;
    if (!held.count(stream)) return 400;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreateWithFlags(handle* out, unsigned flags) { return flags == 1 ? give("cudaStreamCreateWithFlags", out, 1) : 1; }
int cudaStreamSynchronize(handle) { return did("cudaStreamSynchronize"); }
int cudaStreamDestroy(handle one) { return take("cudaStreamDestroy", one); }
int cudaStreamBeginCapture(handle, int mode) { capturing = mode == 1; return did("cudaStreamBeginCapture"); }
int cudaStreamEndCapture(handle, handle* graph) { capturing = false; return give("cudaStreamEndCapture", graph, 1); }
int cudaGraphInstantiateWithFlags(handle* out, handle, unsigned long long) { return give("cudaGraphInstantiateWithFlags", out, 1); }
int cudaGraphLaunch(handle graph, handle) {
    if (!held.count(graph)) return 400;
    if (replay) replay();
    return did("cudaGraphLaunch");
}
int cudaGraphDestroy(handle one) { return take("cudaGraphDestroy", one); }
int cudaGraphExecDestroy(handle one) { return take("cudaGraphExecDestroy", one); }
int cudaEventCreate(handle* out) { return give("cudaEventCreate", out, sizeof(double)); }
int cudaEventRecord(handle event, handle) { *(double*)event = now_ms(); return did("cudaEventRecord"); }
int cudaEventElapsedTime(float* ms, handle start, handle end) { *ms = *(double*)end - *(double*)start; return did("cudaEventElapsedTime"); }
int cudaEventDestroy(handle one) { return take("cudaEventDestroy", one); }
}
