/* Wine 8 has no bcryptprimitives.dll, which programs of Rust take their random bytes from; every Windows
   since 7 has one. This one stands beside the program when it runs under that Wine, for tests alone. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG bytes);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T bytes) {
    return SystemFunction036(buffer, (ULONG)bytes);
}
