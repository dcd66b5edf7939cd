/* A driver's library as far as it is asked: signatures of nvml.h, one GPU, values that a test can name.
   OLD leaves out what drivers before 535 lack, MEAGRE answers as a board that supports hardly anything. */
#include <string.h>

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned int pid; unsigned long long bytes; unsigned int gpu_instance, compute_instance; } Process;
typedef void *Device;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3 };
static int opened, the_gpu;

#ifdef MEAGRE
#define GIVES(x) return UNSUPPORTED
#else
#define GIVES(x) do { if (!opened) return UNINITIALIZED; if (device != &the_gpu) return INVALID; x; return OK; } while (0)
#endif

int nvmlInit_v2(void) { opened = 1; return OK; }
int nvmlShutdown(void) { opened = 0; return OK; }
const char *nvmlErrorString(int code) { return code == UNSUPPORTED ? "Not Supported" : "Invalid Argument"; }
int nvmlSystemGetDriverVersion(char *text, unsigned int n) { strncpy(text, "575.57.08", n); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12090; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device *device) {
  if (index > 1) return INVALID;
  *device = &the_gpu;
  return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
  if (strcmp(uuid, "GPU-1")) return INVALID;
  *device = &the_gpu;
  return OK;
}
int nvmlDeviceGetName(Device device, char *text, unsigned int n) { GIVES(strncpy(text, "NVIDIA Stub 4090", n)); }
int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) { GIVES(*major = 8; *minor = 9); }
int nvmlDeviceGetClockInfo(Device device, int of, unsigned int *mhz) { GIVES(*mhz = of == 2 ? 10501 : 2520); }
int nvmlDeviceGetMaxClockInfo(Device device, int of, unsigned int *mhz) { GIVES(*mhz = of == 2 ? 10502 : 3105); }
int nvmlDeviceGetTemperature(Device device, int sensor, unsigned int *c) { GIVES(*c = sensor == 0 ? 71 : 0); }
int nvmlDeviceGetTemperatureThreshold(Device device, int of, unsigned int *c) { GIVES(*c = of == 1 ? 93 : 0); }
#ifndef OLD
int nvmlDeviceGetCurrentClocksEventReasons(Device device, unsigned long long *bits) { GIVES(*bits = 0x2 | 0x4 | 0x40); }
#endif
int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long *bits) { GIVES(*bits = 0x80); }
int nvmlDeviceGetPowerUsage(Device device, unsigned int *mw) { GIVES(*mw = 312500); }
int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned int *mw) { GIVES(*mw = 450000); }
int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *mj) { GIVES(*mj = 5000000000000ull); }
int nvmlDeviceGetUtilizationRates(Device device, Utilization *rates) { GIVES(rates->gpu = 97; rates->memory = 40); }
int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
  GIVES(memory->total = 25757220864ull; memory->free = 20000000000ull; memory->used = 5757220864ull);
}
int nvmlDeviceGetPersistenceMode(Device device, int *on) { GIVES(*on = 1); }
int nvmlDeviceGetEccMode(Device device, int *now, int *pending) { GIVES(*now = 0; *pending = 1); }
int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned int *count, Process *rows) {
  Process found[] = {{1, 100, 0, 0}, {4000000001u, 200, 0, 0}};
  if (*count < 2) return 7;
  GIVES(*count = 2; memcpy(rows, found, sizeof found));
}
