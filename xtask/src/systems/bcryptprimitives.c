/* For tests alone: Rust's standard library asks this of Windows, and the Wine that runs the tests does not have it.
 * Random bytes, which Wine takes from the kernel. */
#include <windows.h>

BOOLEAN WINAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T count) { return SystemFunction036(bytes, (ULONG)count); }
